"""The plausibility gate: what cannot be true never reaches a report.

Each problem names the measurement: its case, its repeat and its run directory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpctrain.bench.report.measured import trial_mfu
from hpctrain.bench.report.parts import find_missing_steps, split_step
from hpctrain.bench.samples import PARTS as RANK_PARTS
from hpctrain.bench.samples import RankSteps, Sample
from hpctrain.bench.scaling.cases import BenchPlan, Case, StoredSample
from hpctrain.errors import BenchError, raise_all
from hpctrain.gpu_peaks import TERA

PARTS_OVER_STEP = 1.10
"""Clocks are read at slightly different places; more than this is no such difference."""


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
