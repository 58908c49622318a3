"""The plausibility gate: what cannot be true never reaches a report.

Each problem names the measurement: its case, its repeat and its run directory.
"""

from __future__ import annotations

import math
import statistics
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
SAME_CLOCK = 1.01
"""Steps and the whole trial are timed by two clocks."""


def check_trials(folder: Path, plan: BenchPlan, samples: Sequence[StoredSample]) -> None:
    """Refuse trials whose figures cannot be, kept or not yet kept.

    Raises:
        BenchError: all problems at once.
    """
    raise_all(BenchError, [p for stored in samples for p in _find_problems(folder, plan, stored)])


def check_measurement(folder: Path, plan: BenchPlan, samples: Sequence[StoredSample]) -> None:
    """Refuse a measurement whose kept trials cannot be, or of which one is kept twice.

    Raises:
        BenchError: all problems at once, each with how to measure its trial again.
    """
    problems = []
    for stored in samples:
        again = say_again(Path(stored.run).name)
        problems += [f"{problem} {again}" for problem in _find_problems(folder, plan, stored)]
    raise_all(BenchError, [*problems, *_find_doubles(folder, samples)])


def say_again(*names: str) -> str:
    """Return what measures trials again, which are named by their runs or cases."""
    return (
        "To measure it again, give the command that began it, with --out and --remeasure "
        f"{','.join(names)}."
    )


def _find_problems(folder: Path, plan: BenchPlan, stored: StoredSample) -> Iterator[str]:
    where = f"{stored.case}, repeat {stored.repeat} ({folder / stored.run})"
    case = next((case for case in plan.cases if case.key == stored.case), None)
    if case is None:
        known = ", ".join(case.key for case in plan.cases)
        yield f"{where}: no case of the plan, got {stored.case!r}; expected one of {known}."
        return
    found = [*_check_identity(case, stored.sample), *_check_durations(stored)]
    if not found and stored.sample.step_time_s:
        sample = stored.sample
        found = [*_check_parts_sum(sample), *_check_mfu(sample), *_check_wall(stored)]
    yield from (f"{where}: {problem}" for problem in found)


def _find_doubles(folder: Path, samples: Sequence[StoredSample]) -> Iterator[str]:
    """Yield the trials of which there are several lines: one measurement counted as more."""
    runs: dict[tuple[str, int], list[str]] = {}
    for stored in samples:
        runs.setdefault((stored.case, stored.repeat), []).append(stored.run)
    for (case, repeat), names in runs.items():
        if len(names) > 1:
            yield (
                f"{case}, repeat {repeat} ({folder / names[0]}): {len(names)} lines for one trial, "
                f"got {', '.join(names)}; expected one. "
                f"{say_again(*dict.fromkeys(Path(name).name for name in names))}"
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
    tokens = sample.tokens_per_step
    if tokens is not None and not _is_positive(tokens):
        yield f"no amount of work, got {tokens!r} tokens a step; expected over 0."
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
    """Hold each rank's parts against the steps: over all of them, for ranks end a step apart.

    At both ends a rank may have been held up while rank 0 was not timed yet, or no more: so its two
    longest steps count as its median one.
    """
    if find_missing_steps(sample):
        return
    step_s = math.fsum(sample.step_time_s)
    for rank in sample.ranks:
        parts = (getattr(rank, f"{part}_s") for part in RANK_PARTS)
        steps = sorted(map(math.fsum, zip(*parts, strict=True)))
        claimed_s = math.fsum([*steps[:-2], *[statistics.median(steps)] * len(steps[-2:])])
        if claimed_s > step_s * PARTS_OVER_STEP:
            yield (
                f"rank {rank.rank} worked longer than the steps took, got {claimed_s:.4g} s of "
                f"parts in {step_s:.4g} s; expected at most "
                f"{100 * (PARTS_OVER_STEP - 1):.0f} % more."
            )


def _check_mfu(sample: Sample) -> Iterator[str]:
    """Hold the typical step against the device's peak, and each single one."""
    typical = trial_mfu(sample, split_step(sample).step_s)
    if typical is None:
        return
    limit = (
        f"expected at most 100 % of {sample.np} x {sample.peak_flops / TERA:g} TFLOP/s "
        f"({sample.precision}, {sample.device_name}). Tokens, FLOPs or steps are counted wrong."
    )
    single = [trial_mfu(sample, step_s) for step_s in sample.step_time_s]
    fast = [place for place, mfu in enumerate(single) if mfu > 1]
    if typical > 1:
        yield f"faster than the device can be, got an MFU of {100 * typical:.0f} %; {limit}"
    elif fast:
        yield (
            f"faster than the device can be, got an MFU of {100 * max(single):.0f} % in timed step "
            f"{single.index(max(single)) + 1}, over 100 % in {len(fast)} of {len(single)}; {limit}"
        )


def _check_wall(stored: StoredSample) -> Iterator[str]:
    """Hold the steps against the trial that they are part of, where it was timed."""
    steps_s = math.fsum(stored.sample.step_time_s)
    if stored.wall_s and steps_s > stored.wall_s * SAME_CLOCK:
        yield (
            f"steps longer than their trial, got {steps_s:.4g} s of timed steps in "
            f"{stored.wall_s:.4g} s with launch and warm-up; expected less."
        )


def _backwards(what: str, value: object) -> str:
    return f"time moves backwards: {what}, got {value!r} s; expected more than 0."


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0
