"""From what a bench directory holds to the report's value. Nothing is read or written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpctrain.bench.environment import BUSY_LOAD
from hpctrain.bench.report import lost
from hpctrain.bench.report.findings import Ground, find_findings
from hpctrain.bench.report.forecast import Forecast, forecast_sizes
from hpctrain.bench.report.gate import check_measurement
from hpctrain.bench.report.gate_sizes import (
    check_weak_speedups,
    check_work,
    explain_superlinear,
    warn_above_achievable,
)
from hpctrain.bench.report.links import fit_link_rows, list_bus_points
from hpctrain.bench.report.measured import TOKENS, Measured, measure_case
from hpctrain.bench.report.models import build_models
from hpctrain.bench.report.pairs import pair_placements, pair_precisions
from hpctrain.bench.report.result import Report, Size
from hpctrain.bench.report.stragglers import find_stragglers
from hpctrain.bench.report.wire import ExchangeSettings, read_exchange_settings, wire_bytes
from hpctrain.bench.scaling.cases import BenchPlan, StoredSample
from hpctrain.errors import BenchError

if TYPE_CHECKING:
    from hpctrain.bench.allreduce.results import AllreduceResult

CONDITIONS = {
    "date": "date", "cpu": "CPU", "cores": "cores", "hosts": "hosts", "load_before": "load before",
    "python": "Python", "hpctrain": "hpctrain", "commit": "commit", "mpi": "MPI",
    "torch": "torch", "horovod": "Horovod",
}  # fmt: skip
DOLLARS_OF = 1e6
"""Tokens that a price is told for."""


def analyse_bench(
    folder: Path,
    plan: BenchPlan,
    samples: Sequence[StoredSample],
    allreduces: Mapping[str, AllreduceResult],
) -> Report:
    """Return the report of a measurement.

    Args:
        folder: only to name runs by.

    Raises:
        BenchError: nothing was measured, or what was measured cannot be (all of it at once).
    """
    check_measurement(folder, plan, samples)
    measured = _measure(folder, plan, samples)
    check_work(measured)
    baselines = {m.case.key: lost.choose_baseline(m, measured) for m in measured}
    check_weak_speedups(folder, [(m, baselines[m.case.key]) for m in measured])
    settings = read_exchange_settings(plan.asked.get("config") or {})
    models = build_models(measured, allreduces, settings, plan.environment)
    forecasts = forecast_sizes(measured, baselines, models)
    sizes = tuple(
        _size(m, baselines[m.case.key], settings, plan, forecasts[m.case.key]) for m in measured
    )
    ground = Ground(
        sizes={size.key: size for size in sizes}, measured={m.case.key: m for m in measured},
        models=models, settings=settings, environment=plan.environment,
    )  # fmt: skip
    precisions, placements = pair_precisions(measured), pair_placements(measured)
    bus, links = list_bus_points(allreduces), fit_link_rows(allreduces)
    return Report(
        title=_title(measured),
        conditions=tuple(_conditions(plan, measured)),
        environment=dict(plan.environment),
        asked=dict(plan.asked),
        warmup_steps=plan.warmup_steps,
        timed_steps=plan.timed_steps,
        planned_repeats=plan.repeats,
        price=plan.usd_per_hour,
        sizes=sizes,
        precisions=precisions,
        placements=placements,
        bus=bus,
        links=links,
        findings=find_findings(ground, precisions, placements),
        warnings=tuple(_warnings(plan, measured)),
    )


def _measure(
    folder: Path, plan: BenchPlan, samples: Sequence[StoredSample]
) -> tuple[Measured, ...]:
    by_case: dict[str, list[StoredSample]] = {}
    for stored in samples:
        by_case.setdefault(stored.case, []).append(stored)
    if not by_case:
        raise BenchError(
            f"{folder}: nothing measured yet, got no finished trial; expected at least one. Go on "
            "with the command that began it."
        )
    return tuple(
        measure_case(case, by_case[case.key]) for case in plan.cases if case.key in by_case
    )


def _size(
    measured: Measured, baseline: Measured, settings: ExchangeSettings, plan: BenchPlan,
    forecast: Forecast,
) -> Size:  # fmt: skip
    case = measured.case
    efficiency = lost.efficiency(measured, baseline)
    superlinear = explain_superlinear(measured, baseline)
    return Size(
        key=case.key, mode=case.mode, np=case.np, nodes=case.nodes, precision=case.precision,
        baseline=baseline.case.key,
        unit=measured.unit, rate=measured.rate,
        speedup=efficiency * case.np / baseline.case.np,
        efficiency=efficiency,
        efficiency_rounds=lost.efficiency_spread(measured, baseline),
        mfu=measured.mfu,
        device_name=measured.samples[0].device_name,
        params=measured.samples[0].params,
        work_per_step=measured.work_per_step,
        wire_bytes=wire_bytes(measured.samples[0].params, case.np, settings),
        usd_per_million_tokens=_usd_per_million(measured, plan),
        step_s=measured.step_s, parts_s=measured.parts_s,
        lost_points=lost.lost_points(measured, baseline),
        inconclusive=_judge(measured, baseline), superlinear=superlinear, notes=measured.notes,
        stragglers=find_stragglers(measured.samples),
        forecast=forecast, repeats=measured.repeats,
    )  # fmt: skip


def _judge(measured: Measured, baseline: Measured) -> str | None:
    """Return why nothing can be concluded from a size: of itself, or of what it is held against."""
    if measured.inconclusive or baseline.inconclusive is None:
        return measured.inconclusive
    return f"its baseline is inconclusive ({baseline.case.key}: {baseline.inconclusive})"


def _usd_per_million(measured: Measured, plan: BenchPlan) -> float | None:
    """Return $ per million tokens: the price of the nodes that the case uses, all of each."""
    if plan.usd_per_hour is None or measured.unit != TOKENS:
        return None
    hosts = plan.environment.get("hosts") or ()
    paid = max(len(hosts), *(case.nodes for case in plan.cases))
    usd_per_s = plan.usd_per_hour["value"] * measured.case.nodes / paid / 3600
    return usd_per_s * DOLLARS_OF / measured.rate.median


def _title(measured: Sequence[Measured]) -> str:
    sizes = sorted({m.case.np for m in measured})
    modes = " and ".join(dict.fromkeys(m.case.mode for m in measured))
    return f"Scaling over {', '.join(map(str, sizes))} ranks ({modes})"


def _conditions(plan: BenchPlan, measured: Sequence[Measured]) -> list[tuple[str, str]]:
    rows = []
    for name, title in CONDITIONS.items():
        if plan.environment.get(name) not in (None, "", [], ()):
            rows.append((title, _in_words(plan.environment[name])))
    sample = measured[0].samples[0]
    if sample.device_name:
        rows.append(("GPU", sample.device_name))
    if sample.params:
        rows.append(("model", f"{sample.params:,} parameters"))
    precisions = dict.fromkeys(m.samples[0].precision or "the program's own" for m in measured)
    rows.append(("precision", ", ".join(precisions)))
    steps = "its own" if plan.timed_steps is None else f"{plan.timed_steps}"
    rows.append(("steps", f"{steps} timed after {plan.warmup_steps} of warm-up, in each repeat"))
    rows.append(("repeats", f"{plan.repeats}, interleaved"))
    if plan.usd_per_hour:
        price = plan.usd_per_hour
        words = f"${price['value']:g} an hour: {price.get('what')}, as of {price.get('as_of')}"
        rows.append(("price", words))
    return rows


def _in_words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_in_words(each) for each in value)
    if isinstance(value, Mapping):  # a host
        gpus = value.get("gpus") or ()
        counted = {"slots": value.get("slots"), "cores": value.get("cores"), "GPUs": len(gpus)}
        words = ", ".join(f"{count} {name}" for name, count in counted.items() if count)
        return f"{value.get('name')} ({words})"
    return str(value)


def _warnings(plan: BenchPlan, measured: Sequence[Measured]) -> list[str]:
    warnings = [warning for m in measured if (warning := warn_above_achievable(m))]
    missing = sum(plan.repeats - len(m.repeats) for m in measured)
    unmeasured = len(plan.cases) - len(measured)
    if missing or unmeasured:
        warnings.append(
            f"not finished: {missing + unmeasured * plan.repeats} of "
            f"{len(plan.cases) * plan.repeats} trials are still to be measured"
        )
    load = str(plan.environment.get("load_before", "")).split()
    if load and float(load[0]) > BUSY_LOAD:
        warnings.append(
            f"the machine was busy before the measurement began: load {load[0]}. Expect spread, "
            "and repeat it when quiet"
        )
    unparted = [m for m in measured if m.parts_s is None]
    if unparted:
        warnings.append(
            "no parts of the step are known"
            + ("" if len(unparted) == len(measured) else f" for {unparted[0].case.key}")
            + ": the program reports none (rank_step events), so what the loss went to is unknown"
        )
    return warnings
