"""All repeats of one case together: its rate, its typical step, and what that step was spent on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpctrain.bench.report.parts import PARTS, split_step
from hpctrain.bench.report.spread import Spread, judge_spread, measure_spread
from hpctrain.bench.samples import Sample
from hpctrain.bench.scaling.cases import Case, StoredSample
from hpctrain.errors import BenchError

TOKENS, METRIC = "tokens/s", "metric"
HICCUPS = 0.10
"""A mean step this much longer than the typical one is worth a word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeat:
    """One trial of a case.

    Args:
        rate: work a second over all ranks, in the case's unit.
        step_s: midmean over the timed steps; None without steps.
        step_time_s: every one of them.
        parts_s: by :data:`hpctrain.bench.report.parts.PARTS`; None where unknown.
        mfu: 0 to 1; None where unknown.
    """

    repeat: int
    run: str
    load_before: float
    rate: float
    step_s: float | None
    mean_step_s: float | None
    step_time_s: tuple[float, ...]
    parts_s: Mapping[str, float] | None
    mfu: float | None
    metric: tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One case with its repeats.

    Args:
        rate: over the repeats.
        unit: of the rate.
        work_per_step: tokens (or what `unit` counts) in one step of all ranks; None without steps.
        step_s: the typical step: `work_per_step` over the median rate.
        parts_s: of the typical step, adding up to it; None where the ranks report none.
        inconclusive: why this size says nothing; None where it does.
        notes: what else should be known of it.
        samples: as they were read, in the order of their repeats.
    """

    case: Case
    rate: Spread
    unit: str
    work_per_step: float | None
    step_s: float | None
    parts_s: Mapping[str, float] | None
    mfu: float | None
    inconclusive: str | None
    notes: tuple[str, ...]
    repeats: tuple[Repeat, ...]
    samples: tuple[Sample, ...]


def measure_case(case: Case, stored: Sequence[StoredSample]) -> Measured:
    """Return what a case's trials say together.

    Raises:
        BenchError: no trial of it is finished.
    """
    if not stored:
        raise BenchError(
            f"{case.key}: nothing measured, got no finished trial; expected at least one. "
            "Go on with the measurement: the command that began it, once more."
        )
    stored = sorted(stored, key=lambda each: each.repeat)
    unit, works = _find_unit(case, stored)
    pairs = list(zip(stored, works, strict=True))
    repeats = tuple(_measure_trial(each, work) for each, work in pairs)
    rate = measure_spread([repeat.rate for repeat in repeats])
    work = statistics.median(works) if works[0] is not None else None
    step_s = None if work is None else work / rate.median
    mfus = [repeat.mfu for repeat in repeats if repeat.mfu is not None]
    return Measured(
        case=case,
        rate=rate,
        unit=unit,
        work_per_step=work,
        step_s=step_s,
        parts_s=_join_parts(repeats, step_s),
        mfu=statistics.median(mfus) if len(mfus) == len(repeats) else None,
        inconclusive=judge_spread(rate),
        notes=tuple(_notes(stored, repeats)),
        repeats=repeats,
        samples=tuple(each.sample for each in stored),
    )


def _find_unit(case: Case, stored: Sequence[StoredSample]) -> tuple[str, list[float | None]]:
    """Return what is counted, and how much of it a step of each trial has.

    Where nobody says how many tokens a step has, steps are counted: in weak scaling each rank's
    own, for the ranks' work adds up; in strong scaling all ranks share one.
    """
    if all(each.metric for each in stored):
        return METRIC, [None] * len(stored)
    tokens = [each.sample.tokens_per_step for each in stored]
    if all(tokens):
        return TOKENS, list(tokens)
    if case.mode == "weak":
        return "rank-steps/s", [float(case.np)] * len(stored)
    return "steps/s", [1.0] * len(stored)


def _measure_trial(stored: StoredSample, work: float | None) -> Repeat:
    sample = stored.sample
    split = split_step(sample) if sample.step_time_s else None
    by_metric = work is None or split is None
    rate = statistics.median(stored.metric or ()) if by_metric else work / split.step_s
    return Repeat(
        repeat=stored.repeat,
        run=stored.run,
        load_before=stored.load_before,
        rate=rate,
        step_s=split and split.step_s,
        mean_step_s=split and split.mean_step_s,
        step_time_s=sample.step_time_s,
        parts_s=None if by_metric else split.parts_s,
        mfu=None if split is None else trial_mfu(sample, split.step_s),
        metric=stored.metric,
    )


def trial_mfu(sample: Sample, step_s: float) -> float | None:
    """Return the model FLOPs utilization, 0 to 1; None where a figure for it is unknown.

    tokens/s × FLOPs per token / (ranks × peak) (Chowdhery et al. 2022, "PaLM", appendix B).
    """
    if not (sample.tokens_per_step and sample.flops_per_token and sample.peak_flops):
        return None
    tokens_per_s = sample.tokens_per_step / step_s
    return tokens_per_s * sample.flops_per_token / (sample.np * sample.peak_flops)


def _join_parts(repeats: Sequence[Repeat], step_s: float | None) -> dict[str, float] | None:
    """Return the parts of the typical step: each one's mean share over the repeats, of that step.

    Medians of parts would not add up to a median step; mean shares do.
    """
    known = [repeat for repeat in repeats if repeat.parts_s is not None]
    if step_s is None or not known:
        return None
    return {
        part: step_s * math.fsum(r.parts_s[part] / r.step_s for r in known) / len(known)
        for part in PARTS
    }


def _notes(stored: Sequence[StoredSample], repeats: Sequence[Repeat]) -> list[str]:
    notes = []
    slow = [r.mean_step_s / r.step_s for r in repeats if r.step_s and r.mean_step_s]
    if slow and statistics.median(slow) > 1 + HICCUPS:
        notes.append(
            f"single slow steps make the mean step {100 * (statistics.median(slow) - 1):.0f} % "
            "longer than the typical one that is reported"
        )
    for each in stored:
        if each.sample.step_time_s and (missing := split_step(each.sample).missing):
            notes.append(f"no parts in repeat {each.repeat}: {missing}")
    return notes
