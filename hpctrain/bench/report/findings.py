"""What a person should take away, in plain words; every figure is measured or predicted here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpctrain.bench.report.measured import Measured
from hpctrain.bench.report.models import SizeModel, host_cores, ranks_per_host
from hpctrain.bench.report.pairs import Pair
from hpctrain.bench.report.parts import TITLES
from hpctrain.bench.report.remedies import HIDDEN, LinkNeed, find_link_need, find_what_ifs
from hpctrain.bench.report.result import Size
from hpctrain.bench.report.wire import ExchangeSettings
from hpctrain.bench.report.words import say_list, say_number, say_percent, say_ranks

WORTH_POINTS = 3.0
"""Percent points that a part must have taken to be spoken of."""

ENOUGH = 1.05
"""More than so many times the bandwidth that there is, is more than there is."""
FAR_BEYOND = 4.0
"""A loss so many times the quartile range of the efficiency is spoken of however wide that is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What findings rest on, all by a case's key."""

    sizes: Mapping[str, Size]
    measured: Mapping[str, Measured]
    models: Mapping[str, SizeModel | str]
    settings: ExchangeSettings
    environment: Mapping[str, Any]


def find_findings(
    ground: Ground, precisions: Sequence[Pair], placements: Sequence[Pair]
) -> tuple[str, ...]:
    """Return the findings, a paragraph for each line of sizes and one for what is compared."""
    paragraphs = [
        " ".join(_describe(size, ground)) for size in _headlines(tuple(ground.sizes.values()))
    ]
    compared = [*_describe_placements(placements, ground), *_describe_precisions(precisions)]
    compared += _describe_forecasts(ground.sizes.values())
    compared += _describe_inconclusive(ground.sizes.values())
    if compared:
        paragraphs.append(" ".join(compared))
    return tuple(paragraphs)


def _headlines(sizes: Sequence[Size]) -> list[Size]:
    """Return the largest size of each mode and precision, or its baseline where there is no more.

    Of several placements of it, the one on most nodes.
    """
    best: dict[tuple[str, str | None], Size] = {}
    for size in sizes:
        key = (size.mode, size.precision)
        if key not in best or (size.np, size.nodes) > (best[key].np, best[key].nodes):
            best[key] = size
    return list(best.values())


def _describe(size: Size, ground: Ground) -> Iterator[str]:
    base = ground.sizes[size.baseline]
    kind = ", ".join(word for word in (f"{size.mode.capitalize()} scaling", size.precision) if word)
    if size.is_baseline:
        yield (
            f"{kind}: only {say_ranks(size.np, size.nodes)} measured, "
            f"{say_number(size.rate.median)} {size.unit}; nothing to compare it with."
        )
        return
    low, high = size.efficiency_rounds.q1, size.efficiency_rounds.q3
    yield (
        f"{kind}, {say_ranks(size.np, size.nodes)}: {say_percent(size.efficiency, 0)} efficiency "
        f"(quartiles {say_percent(low, 0)} to {say_percent(high, 0)}), "
        f"{say_number(size.rate.median)} {size.unit}, against {say_number(base.rate.median)} of "
        f"{say_ranks(base.np, base.nodes)}."
    )
    if size.superlinear:
        yield f"That is {size.superlinear}."
    if size.inconclusive and 1 - size.efficiency < FAR_BEYOND * (high - low):
        yield f"Nothing can be concluded from that: {size.inconclusive}."
    elif size.lost_points is not None:
        if size.inconclusive:
            yield f"That is rough ({size.inconclusive}), but the loss is far larger."
        yield from _describe_loss(size, ground)


def _describe_loss(size: Size, ground: Ground) -> Iterator[str]:
    points = size.lost_points
    large = sorted((p for p in points if points[p] >= WORTH_POINTS), key=lambda p: -points[p])
    lost = 100 * (1 - size.efficiency)
    if not large:
        if lost >= WORTH_POINTS:
            yield f"No single part took {WORTH_POINTS:g} of the {lost:.0f} points that are missing."
        return
    said = [f"{points[part]:.0f} {_in_words(part)}" for part in large]
    gains = [part for part in points if points[part] <= -WORTH_POINTS]
    gained = [f"{-points[part]:.0f} are won back in {TITLES[part]}" for part in gains]
    yield f"Of 100 points {lost:.0f} are missing: {say_list(said + gained)}."
    for part in large:
        yield from _explain(part, size, ground)
    if {"exchange", "waiting"} & set(large):
        yield from _propose(size, ground)


def _in_words(part: str) -> str:
    return {
        "exchange": "exposed all-reduce", "waiting": "waiting for the slowest rank",
        "data": "waiting for samples", "other": "what no part accounts for",
    }.get(part, TITLES[part])  # fmt: skip


def _explain(part: str, size: Size, ground: Ground) -> Iterator[str]:
    if part == "backward" and size.lost_points["forward"] >= WORTH_POINTS:
        part = "forward"  # said once for both
    elif part == "forward" and size.lost_points["backward"] >= WORTH_POINTS:
        return
    if part in ("forward", "backward"):
        yield _explain_compute(size, ground)
    elif part == "waiting":
        yield _explain_waiting(size)
    elif part == "exchange":
        yield from _explain_exchange(size, ground)
    elif part == "data":
        yield "Samples come later than they are used: reading does not keep up with the step."
    elif part == "optimizer":
        yield from _explain_optimizer(size, ground)


def _explain_compute(size: Size, ground: Ground) -> str:
    base = ground.sizes[size.baseline]
    ratio = ground.measured[size.key].work_per_step / size.np
    ratio /= ground.measured[base.key].work_per_step / base.np
    ideal = (base.parts_s["forward"] + base.parts_s["backward"]) * ratio
    slower = (size.parts_s["forward"] + size.parts_s["backward"]) / ideal - 1
    grew = f"Computing itself takes {100 * slower:.0f} % longer than in the baseline"
    measured = ground.measured[size.key]
    if measured.samples[0].device_name is not None:
        if size.mode == "strong":
            return f"{grew}: smaller shares of the batch use a GPU less well."
        return f"{grew}: the exchange takes part of each GPU, or its clock falls."
    cores = host_cores(ground.environment)
    ranks = ranks_per_host(measured)
    for host, count in ranks.items():
        if cores.get(host) and count > cores[host]:
            return f"{grew}: {count} ranks take turns on {cores[host]} cores."
    most = max(ranks.values())
    known = next((cores[host] for host in ranks if cores.get(host)), None)
    if most > 1:
        on = f"'s {known} cores" if known else ""
        return (
            f"{grew}: {most} ranks share one machine{on}, with its caches, memory bandwidth and "
            "the threads of the exchange."
        )
    return f"{grew}: the exchange, with its threads, runs on the cores that compute."


def _explain_waiting(size: Size) -> str:
    if not size.stragglers:
        return "No rank stands out as the slowest: they take turns."
    hosts = {straggler.host for straggler in size.stragglers}
    first = size.stragglers[0]
    if len(size.stragglers) > 1 and len(hosts) == 1:
        ranks = say_list([str(straggler.rank) for straggler in size.stragglers])
        who = f"Ranks {ranks}, all on {first.host}, are"
    else:
        who = f"Rank {first.rank} on {first.host} is"
    return (
        f"{who} up to {100 * first.slower:.0f} % slower than the others, mostly in "
        f"{TITLES[first.part]}."
    )


def _explain_exchange(size: Size, ground: Ground) -> Iterator[str]:
    model = ground.models.get(size.key)
    if isinstance(model, str) or model is None:
        if size.wire_bytes:
            backward_s = size.parts_s["backward"]
            needed = size.wire_bytes / backward_s / 1e9
            yield (
                f"Hidden behind backward, each rank would have to send at {say_number(needed)} "
                f"GB/s at least; what it gets is not known: {model}."
            )
        return
    yield _say_need(find_link_need(model), size)


def _say_need(need: LinkNeed, size: Size) -> str:
    latency = ""
    if need.left > HIDDEN:
        latency = f", all but {say_percent(need.left, 0)} of the step that is latency"
    gives = f"The link gives {say_number(need.gives_gb_per_s)} GB/s"
    if need.needs_gb_per_s > ENOUGH * need.gives_gb_per_s:
        needs = say_number(need.needs_gb_per_s)
        return (
            f"{gives} where this model needs {needs} to hide the exchange behind backward{latency}."
        )
    words = f"{gives}, enough to hide the exchange{latency}"
    if size.parts_s["exchange"] / size.step_s > need.exposed + HIDDEN:
        words += "; beside computing it gets less than alone"
    return f"{words}."


def _explain_optimizer(size: Size, ground: Ground) -> Iterator[str]:
    if ground.settings.sharded:
        return
    if size.mode == "strong":
        yield (
            "The optimizer updates all parameters on every rank, however small its share of the "
            "batch: optim.sharded = true would share that out."
        )
    elif (
        size.nodes == 1 and size.np > 1 and ground.measured[size.key].samples[0].device_name is None
    ):
        yield "The optimizer reads and writes memory, whose bandwidth the ranks share."


def _propose(size: Size, ground: Ground) -> Iterator[str]:
    model = ground.models.get(size.key)
    if model is None or isinstance(model, str):
        return
    on_gpu = ground.measured[size.key].samples[0].device_name is not None
    what_ifs = find_what_ifs(
        size.efficiency, model, ground.settings, over_network=size.nodes > 1 or on_gpu
    )
    said = [f"{what.words} to about {say_percent(what.efficiency, 0)}" for what in what_ifs]
    if said:
        first = said[0].replace(" to about", " would lift it to about", 1)
        yield f"By the scaling model, {', '.join([first, *said[1:]])}."


def _describe_placements(pairs: Sequence[Pair], ground: Ground) -> Iterator[str]:
    for pair in pairs:
        size = ground.sizes[pair.key]
        percent = say_percent(pair.ratio.median, 0)
        yield (
            f"{size.np} ranks on {size.nodes} nodes run at {percent} of their rate on "
            f"{ground.sizes[pair.baseline].nodes} ({pair.key}: {pair.verdict})."
        )


def _describe_precisions(pairs: Sequence[Pair]) -> Iterator[str]:
    for pair in pairs:
        words = (
            f"{pair.key}: {pair.what} is {pair.ratio.median:.2f} times as fast (quartiles "
            f"{pair.ratio.q1:.2f} to {pair.ratio.q3:.2f}, {pair.verdict})"
        )
        if pair.loss_difference is not None:
            words += f"; losses differ by at most {say_percent(pair.loss_difference, 2)}"
        yield f"{words}."


def _describe_forecasts(sizes: Sequence[Size]) -> Iterator[str]:
    errors = {s.key: s.forecast.error for s in sizes if s.forecast.error is not None}
    if errors:
        worst = max(errors, key=lambda key: abs(errors[key]))
        off = f"{100 * errors[worst]:+.0f} % off"
        if len(errors) == 1:
            yield f"The scaling model predicts the step of {worst}, {off}."
        else:
            yield f"The scaling model predicts {len(errors)} steps, at worst {off} ({worst})."


def _describe_inconclusive(sizes: Sequence[Size]) -> Iterator[str]:
    wide: dict[str, list[str]] = {}
    for size in sizes:
        if size.inconclusive:
            wide.setdefault(size.inconclusive, []).append(size.key)
    for why, keys in wide.items():
        yield (
            f"Conclude nothing from {say_list(keys)}: {why}. Measure again with more repeats, "
            "on a quiet machine."
        )
