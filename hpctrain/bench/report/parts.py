"""Where one trial's step goes: parts that add up to the step.

Each rank reports its own parts. What a rank waits for after backward is two things: the exchange
itself, which no rank escapes (the least that any rank waited in that step), and beyond that the
wait for the slowest rank. The other parts are means over the ranks, and what nobody claims is
``other``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hpctrain.bench.report.spread import mean_at, middle_half
from hpctrain.bench.samples import RankSteps, Sample

PARTS = ("data", "forward", "backward", "exchange", "waiting", "optimizer", "other")
TITLES = {
    "data": "data",
    "forward": "forward",
    "backward": "backward",
    "exchange": "exposed communication",
    "waiting": "waiting for the slowest",
    "optimizer": "optimizer",
    "other": "other",
}
ROUNDING = 1e-9
"""A part this small, of a step, is what rounding leaves of nothing."""
OWN_PARTS = ("data", "forward", "backward", "optimizer")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSplit:
    """One trial's typical step.

    Args:
        step_s: midmean over its timed steps.
        mean_step_s: mean over all of them: larger where single steps are slow.
        parts_s: by PARTS, adding up to `step_s`; None where the ranks report none.
        missing: why there are no parts although ranks reported some.
    """

    step_s: float
    mean_step_s: float
    parts_s: Mapping[str, float] | None
    missing: str | None = None


def split_step(sample: Sample) -> StepSplit:
    """Return a trial's typical step, which has at least one timed step."""
    places = middle_half(sample.step_time_s)
    step_s = mean_at(sample.step_time_s, places)
    missing = find_missing_steps(sample)
    parts_s = None
    if sample.ranks and missing is None:
        parts_s = _mean_parts(sample.ranks, places)
        other_s = step_s - math.fsum(parts_s.values())
        parts_s["other"] = other_s if abs(other_s) > ROUNDING * step_s else 0.0
    return StepSplit(
        step_s=step_s,
        mean_step_s=math.fsum(sample.step_time_s) / len(sample.step_time_s),
        parts_s=parts_s,
        missing=missing,
    )


def find_missing_steps(sample: Sample) -> str | None:
    """Return why the ranks' parts cannot be laid side by side; None where they can, or are none."""
    if not sample.ranks:
        return None
    if len(sample.ranks) != sample.np:
        return f"{len(sample.ranks)} of {sample.np} ranks reported parts"
    steps = len(sample.step_time_s)
    short = [rank for rank in sample.ranks if len(rank.forward_s) != steps]
    if short:
        return f"rank {short[0].rank} reported {len(short[0].forward_s)} of {steps} steps"
    return None


def own_times(rank: RankSteps) -> tuple[float, ...]:
    """Return what a rank itself worked in each step (s): all but the exchange."""
    return tuple(
        math.fsum(values)
        for values in zip(*(getattr(rank, f"{part}_s") for part in OWN_PARTS), strict=True)
    )


def _mean_parts(ranks: tuple[RankSteps, ...], places: tuple[int, ...]) -> dict[str, float]:
    count = len(ranks)
    mean = {
        part: math.fsum(mean_at(getattr(rank, f"{part}_s"), places) for rank in ranks) / count
        for part in (*OWN_PARTS, "exposed_comm")
    }
    least = [min(waits) for waits in zip(*(rank.exposed_comm_s for rank in ranks), strict=True)]
    exchange_s = mean_at(least, places)
    return {
        "data": mean["data"],
        "forward": mean["forward"],
        "backward": mean["backward"],
        "exchange": exchange_s,
        "waiting": mean["exposed_comm"] - exchange_s,
        "optimizer": mean["optimizer"],
    }
