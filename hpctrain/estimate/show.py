"""An estimate on the terminal, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hpctrain.estimate.accumulation import Accumulation
from hpctrain.estimate.band import find_band
from hpctrain.estimate.line import Line
from hpctrain.estimate.lines import describe
from hpctrain.estimate.plan import Estimate
from hpctrain.estimate.quantities import render_count, render_duration, render_usd
from hpctrain.estimate.smallest import Advice
from hpctrain.estimate.verdict import HOLDS, TIGHT, UNCERTAIN, Verdict
from hpctrain.estimate.what_if import Choice, Sweep

NARROWEST = 100  # columns below which sources would be cut into slivers
WIDTH_OF_FILES = 150
MOST_ROWS = 20


def render_json(
    estimate: Estimate, verdicts: Sequence[Verdict], advice: Sequence[Advice],
    notes: Sequence[str], accumulation: Accumulation | None = None,
) -> str:  # fmt: skip
    """Return everything as JSON: `values` by key, and the same as `lines` with their sources."""
    lines = describe(estimate)
    cluster = estimate.cluster
    clusters = [each.cluster for each in advice if each.cluster is not None]
    values = {line.key: line.value for line in lines} | _more_values(estimate)
    record = {
        "schema": 1,
        "holds": all(verdict.holds for verdict in verdicts),
        "certain": all(verdict.kind in (HOLDS, TIGHT) for verdict in verdicts),
        "values": {key: _finite(value) for key, value in values.items()},
        "band": _finite_all(asdict(find_band(estimate))),
        "lines": [{**asdict(line), "value": _finite(line.value)} for line in lines],
        "cluster": {
            "gpu": cluster.gpu.name, "nodes": cluster.nodes,
            "gpus_per_node": cluster.gpus_per_node, "instance": cluster.instance,
            "accum": estimate.job.accum, **asdict(estimate.job.load(cluster.gpus)),
        },
        "mfu": asdict(estimate.assumptions.mfu),
        "memory_moment": estimate.memory.moment,
        "fits": estimate.fits,
        "tight": estimate.tight,
        "offers": [asdict(offer) for offer in estimate.offers],
        "verdicts": [_finite_all(asdict(verdict)) for verdict in verdicts],
        "advice": [each.words for each in advice],
        "smallest_cluster": _cluster_record(clusters[0]) if clusters else None,
        "accumulation": None if accumulation is None else asdict(accumulation),
        "notes": list(notes),
    }  # fmt: skip
    return json.dumps(record, indent=2, ensure_ascii=False)


def _more_values(estimate: Estimate) -> dict[str, Any]:
    """Return the figures that stand in the words of other lines."""
    speed, plan = estimate.speed, estimate.goodput
    return {
        "step_s": speed.step_s, "compute_s": speed.compute_s, "exposed_s": speed.exposed_s,
        "gather_s": speed.gather_s, "waiting_s": speed.waiting_s, "steps": estimate.steps,
        "ceiling_tokens_per_s": speed.ceiling_tokens_per_s, "ceiling_s": estimate.ceiling_s,
        "stall_s": plan.stall_s, "write_s": plan.write_s, "restart_s": plan.restart_s,
        "interval_steps": estimate.interval_steps, "needed_at_most_bytes":
        estimate.memory.at_most_bytes, "on_demand_usd": estimate.usd,
    }  # fmt: skip


def _cluster_record(estimate: Estimate) -> dict[str, Any]:
    """Return an advised cluster in numbers."""
    cluster = estimate.cluster
    return _finite_all({
        "gpu": cluster.gpu.name, "nodes": cluster.nodes, "gpus_per_node": cluster.gpus_per_node,
        "gpus": cluster.gpus, "accum": estimate.job.accum,
        "tokens_per_step": estimate.speed.tokens_per_step, "expected_s": estimate.expected_s,
        "hours": estimate.expected_s / 3600, "gpu_hours": estimate.gpu_hours,
        "usd": estimate.usd, "efficiency": estimate.speed.efficiency,
        "link": cluster.inter.source if cluster.nodes > 1 else None,
    })  # fmt: skip


def render_sweep_json(found: Sweep) -> str:
    """Return every row of a sweep as JSON."""
    record = {
        "schema": 1,
        "holds": any(choice.meets for choice in found.choices),
        "choices": [_as_record(choice) for choice in found.choices],
        "left_out": list(found.left_out),
    }
    return json.dumps(record, indent=2, ensure_ascii=False)


def print_estimate(
    estimate: Estimate, verdicts: Sequence[Verdict], advice: Sequence[Advice],
    notes: Sequence[str],
) -> None:  # fmt: skip
    """Print the table, and under it what holds and what does not."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=True)
    table.add_column("", style="bold", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("how much", no_wrap=True)
    table.add_column("from", style="dim", overflow="fold")
    group = ""
    for line in describe(estimate):
        if group and line.group != group:
            table.add_row()
        table.add_row(*_row(line, shows_group=line.group != group))
        group = line.group
    console = _console()
    console.print(table)
    console.print()
    for note in notes:
        console.print(f"note        {note}", soft_wrap=True)
    for verdict in verdicts:
        style = {"holds": "green", "no": "bold red"}.get(verdict.kind, "yellow")
        colon = " " if verdict.kind == UNCERTAIN else ": "
        text = f"{verdict.goal:<12}{verdict.kind}{colon}{verdict.words}"
        console.print(text, style=style, soft_wrap=True)
        if verdict.advice:
            console.print(f"{'':<12}try: {verdict.advice}", soft_wrap=True)
    for each in advice:
        console.print(f"{'advice':<12}{each.words}", soft_wrap=True)


def print_sweep(found: Sweep, has_goals: bool) -> None:
    """Print the rows that meet the goals, the cheapest first, and the quickest of the others."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading, justify in (
        ("", "left"), ("GPUs", "right"), ("machines", "left"), ("MFU", "right"),
        ("scaling", "right"), ("batch", "right"), ("tokens/s", "right"), ("time", "right"),
        ("on demand", "right"), ("spot", "right"), ("memory", "left"),
    ):  # fmt: skip
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    meeting = [choice for choice in found.choices if choice.meets]
    others = [choice for choice in found.choices if not choice.meets]
    shown = meeting[:MOST_ROWS] + others[: max(3, MOST_ROWS - len(meeting))]
    for choice in shown:
        table.add_row(*_sweep_row(choice, has_goals))
    console = _console()
    console.print(table)
    left = len(found.choices) - len(shown)
    if left:
        console.print(f"{left} more rows: --json")
    if has_goals and any(choice.meets and not choice.certain for choice in shown):
        console.print("likely    it meets them by what is expected, not over the whole band")
    for line in found.left_out:
        console.print(f"left out  {line}", soft_wrap=True)
    sources = sorted({choice.estimate.assumptions.mfu.source for choice in shown})
    for source in sources:
        console.print(f"MFU       {source}", soft_wrap=True)
    if found.choices:
        as_of = found.choices[0].estimate.assumptions.prices["as_of"]
        if found.choices[0].estimate.job.global_sequences is None:
            console.print("batch     grows with the GPUs; --global-batch keeps it")
        console.print(f"prices    prices.toml, list prices as of {as_of}; machines alone")


def _row(line: Line, *, shows_group: bool) -> tuple[str, str, str, str]:
    return (line.group if shows_group else "", line.name, line.text, line.source)


def _sweep_row(choice: Choice, has_goals: bool) -> tuple[str, ...]:
    estimate = choice.estimate
    cluster, speed = estimate.cluster, estimate.speed
    record = _as_record(choice)
    spot = record["spot_usd"]
    return (
        _word(choice) if has_goals else "",
        f"{cluster.gpus} {cluster.gpu.name}", f"{cluster.nodes} x {cluster.instance}",
        f"{estimate.assumptions.mfu.value:.0%}", f"{speed.efficiency:.0%}",
        render_count(speed.tokens_per_step), render_count(speed.tokens_per_s),
        render_duration(estimate.expected_s),
        "?" if estimate.usd is None else render_usd(estimate.usd),
        "?" if spot is None else render_usd(spot), _memory_word(estimate),
    )  # fmt: skip


def _word(choice: Choice) -> str:
    return "misses" if not choice.meets else "meets" if choice.certain else "likely"


def _memory_word(estimate: Estimate) -> str:
    return "too small" if not estimate.fits else "tight" if estimate.tight else "fits"


def _as_record(choice: Choice) -> dict[str, Any]:
    estimate = choice.estimate
    cluster = estimate.cluster
    spot = estimate.offer.spot_usd(estimate.expected_s / 3600) if estimate.offer else None
    return {
        "meets": choice.meets, "certain": choice.certain, "fits": estimate.fits,
        "tight": estimate.tight, "gpu": cluster.gpu.name,
        "gpus": cluster.gpus, "instance": cluster.instance, "nodes": cluster.nodes,
        "accum": estimate.job.accum, "tokens_per_step": estimate.speed.tokens_per_step,
        "mfu": estimate.assumptions.mfu.value,
        "mfu_source": estimate.assumptions.mfu.source, "efficiency": estimate.speed.efficiency,
        "tokens_per_s": estimate.speed.tokens_per_s, "expected_s": _finite(estimate.expected_s),
        "needed_bytes": estimate.memory.needed_bytes, "on_demand_usd": estimate.usd,
        "spot_usd": spot,
    }  # fmt: skip


def _finite(value: Any) -> Any:
    """Return null for what JSON cannot hold: a run that never gets done."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite_all(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_all(each) for key, each in value.items()}
    return _finite(value)


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    narrowest = NARROWEST if console.is_terminal else WIDTH_OF_FILES
    return Console(highlight=False, markup=False, width=max(console.width, narrowest))
