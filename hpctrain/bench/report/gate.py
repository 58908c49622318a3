"""The plausibility gate: what cannot be true never reaches a report.

Each problem names the measurement: its case, its repeat and its run directory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpctrain.bench.report.measured import Measured, trial_mfu
from hpctrain.bench.report.parts import find_missing_steps, split_step
from hpctrain.bench.report.spread import FEW_REPEATS, measure_spread
from hpctrain.bench.samples import PARTS as RANK_PARTS
from hpctrain.bench.samples import RankSteps, Sample
from hpctrain.bench.scaling.cases import BenchPlan, Case, StoredSample
from hpctrain.errors import BenchError, raise_all
from hpctrain.gpu_peaks import TERA, find_peak

PARTS_OVER_STEP = 1.10
"""Clocks are read at slightly different places; more than this is no such difference."""
OVER_LINEAR = 1.02
"""Weak scaling over n by less than this may be rounding and drift."""
ACHIEVABLE_TFLOPS = {"A100": 271.0, "H100 SXM": 794.5, "H200": 794.5, "B200": 1745.0}
"""Highest dense 16-bit matrix rate that was measured (S. Bekman, "Machine Learning Engineering",
accelerators, Maximum Achievable Matmul FLOPS), by the names of `gpu_peaks`."""
SIXTEEN_BIT = ("fp16", "bf16", "apex-O1", "apex-O2")


def check_trials(folder: Path, plan: BenchPlan, samples: Sequence[StoredSample]) -> None:
    """Refuse trials whose figures cannot be.

    Raises:
        BenchError: all problems at once.
    """
    cases = {case.key: case for case in plan.cases}
    problems = []
    for stored in samples:
        where = f"{stored.case}, repeat {stored.repeat} ({folder / stored.run})"
        case = cases.get(stored.case)
        if case is None:
            problems.append(
                f"{where}: a trial of no case of the plan, got {stored.case!r}; expected one of "
                f"{', '.join(cases)}. Remove its line from samples.jsonl."
            )
            continue
        found = [*_check_identity(case, stored.sample), *_check_durations(stored)]
        if not found and stored.sample.step_time_s:
            found = [*_check_parts_sum(stored.sample), *_check_mfu(stored.sample)]
        problems += [f"{where}: {problem}" for problem in found]
    raise_all(BenchError, problems)


def check_weak_speedups(folder: Path, pairs: Sequence[tuple[Measured, Measured]]) -> None:
    """Refuse weak-scaling speed-ups over n that the spread does not explain.

    Even the slowest repeat is then faster, a rank, than the fastest of the baseline. Fewer than
    FEW_REPEATS have no spread: then the middle half of their steps stands for it.

    Args:
        folder: only to name runs by.
        pairs: each measurement and its baseline.

    Raises:
        BenchError: all of them at once.
    """
    problems = []
    for measured, baseline in pairs:
        least = _rate_range(measured)[0] / measured.case.np
        most = _rate_range(baseline)[1] / baseline.case.np
        if measured.case.mode == "weak" and least > most * OVER_LINEAR:
            runs = ", ".join(str(folder / repeat.run) for repeat in measured.repeats)
            problems.append(
                f"{measured.case.key} against {baseline.case.key} ({runs}): weak scaling over n, "
                f"got at least {least:,.4g} {measured.unit} a rank where the baseline has at most "
                f"{most:,.4g}; expected no more than the baseline has. Each rank does the same "
                "work in both, so the two were not measured alike: look for another load during "
                "the baseline (load_before in samples.jsonl), other threads or another clock."
            )
    raise_all(BenchError, problems)


def _rate_range(measured: Measured) -> tuple[float, float]:
    """Return the lowest and the highest rate that were measured."""
    values = list(measured.rate.values)
    if len(values) < FEW_REPEATS:
        for repeat in measured.repeats:
            raw = repeat.metric or [
                repeat.rate * repeat.step_s / step for step in repeat.step_time_s
            ]
            steps = measure_spread(raw)
            values += [steps.q1, steps.q3]
    return min(values), max(values)


def explain_superlinear(measured: Measured, baseline: Measured) -> str | None:
    """Return what is to be said of strong scaling over n; None where it is not over n."""
    if measured.case.mode != "strong":
        return None
    ratio = (measured.rate.median / measured.case.np) / (baseline.rate.median / baseline.case.np)
    if ratio <= 1:
        return None
    return (
        f"more than {measured.case.np / baseline.case.np:g} times the baseline: in strong scaling "
        "each rank's share of the batch shrinks, and may fit into caches (or memory) that the "
        "whole did not"
    )


def warn_above_achievable(measured: Measured) -> str | None:
    """Return a warning where the MFU is possible, but above the best matrix rate ever measured."""
    sample = measured.samples[0]
    if measured.mfu is None or sample.device_name is None or sample.peak_flops is None:
        return None
    peak = find_peak(sample.device_name)
    achievable = ACHIEVABLE_TFLOPS.get(peak.name) if peak else None
    if achievable is None or sample.precision not in SIXTEEN_BIT:
        return None
    limit = achievable * TERA / sample.peak_flops
    if measured.mfu <= limit:
        return None
    return (
        f"{measured.case.key}: MFU {100 * measured.mfu:.1f} % is above the {100 * limit:.1f} % "
        f"that matrix products alone reach on the {peak.name} ({achievable:g} of "
        f"{sample.peak_flops / TERA:g} TFLOP/s): check how tokens and FLOPs are counted"
    )


def _check_identity(case: Case, sample: Sample) -> Iterator[str]:
    if sample.np != case.np:
        yield f"another size was measured, got {sample.np} ranks; expected {case.np}."
    if case.precision and sample.precision and case.precision != sample.precision:
        yield (
            f"another precision was measured, got {sample.precision}; expected {case.precision}."
        )


def _check_durations(stored: StoredSample) -> Iterator[str]:
    sample = stored.sample
    if not sample.step_time_s and not stored.metric:
        yield "nothing was measured, got neither steps nor a metric; expected one of them."
    for place, value in enumerate(sample.step_time_s):
        if not _is_positive(value):
            yield _backwards(f"timed step {place + 1} took no time", value)
            break
    for place, value in enumerate(stored.metric or ()):
        if not _is_positive(value):
            yield f"value {place + 1} of the metric is no rate, got {value!r}; expected over 0."
            break
    for rank in sample.ranks:
        yield from _check_rank(rank)


def _check_rank(rank: RankSteps) -> Iterator[str]:
    total = 0.0
    for part in RANK_PARTS:
        for place, value in enumerate(getattr(rank, f"{part}_s")):
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                yield _backwards(f"rank {rank.rank}, {part} of timed step {place + 1}", value)
                return
            total += value
    if total == 0:
        yield f"rank {rank.rank} worked for no time at all, got 0 s in every part; expected more."


def _check_parts_sum(sample: Sample) -> Iterator[str]:
    """Hold each rank's parts against the steps: over all of them, for ranks end a step apart."""
    if find_missing_steps(sample):
        return
    step_s = math.fsum(sample.step_time_s)
    for rank in sample.ranks:
        claimed_s = math.fsum(value for part in RANK_PARTS for value in getattr(rank, f"{part}_s"))
        if claimed_s > step_s * PARTS_OVER_STEP:
            yield (
                f"rank {rank.rank} worked longer than the steps took, got {claimed_s:.4g} s of "
                f"parts in {step_s:.4g} s; expected at most "
                f"{100 * (PARTS_OVER_STEP - 1):.0f} % more."
            )


def _check_mfu(sample: Sample) -> Iterator[str]:
    mfu = trial_mfu(sample, split_step(sample).step_s)
    if mfu is not None and mfu > 1:
        yield (
            f"faster than the device can be, got an MFU of {100 * mfu:.0f} %; expected at most "
            f"100 % of {sample.np} x {sample.peak_flops / TERA:g} TFLOP/s ({sample.precision}, "
            f"{sample.device_name}). Tokens, FLOPs or steps are counted wrong."
        )


def _backwards(what: str, value: object) -> str:
    return f"time moves backwards: {what}, got {value!r} s; expected more than 0."


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0
