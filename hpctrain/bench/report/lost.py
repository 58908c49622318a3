"""Efficiency, and where each lost percent went.

A step of n ranks would ideally take what the baseline's takes for the same work a rank:
ideal = T_base · (W_n / n) / (W_base / n_base), W being the work (tokens) of one step of all ranks.
That is T_base itself in weak scaling, and T_base · n_base / n in strong scaling. Efficiency is
ideal / T_n, and the loss 1 - ideal / T_n = Σ (part_n - part_ideal) / T_n over the parts of a step,
which add up to it exactly because the parts add up to the step.
"""

from __future__ import annotations

from collections.abc import Mapping

from hpctrain.bench.report.measured import Measured
from hpctrain.bench.report.parts import PARTS
from hpctrain.bench.report.spread import Spread, pairwise_ratios


def choose_baseline(measured: Measured, all_measured: tuple[Measured, ...]) -> Measured:
    """Return what a case is compared with: the fewest ranks of its own mode and precision."""
    alike = [
        other
        for other in all_measured
        if (other.case.mode, other.case.precision, other.unit)
        == (measured.case.mode, measured.case.precision, measured.unit)
    ]
    return min(alike, key=lambda other: (other.case.np, other.case.nodes))


def efficiency(measured: Measured, baseline: Measured) -> float:
    """Return the rate a rank over the baseline's rate a rank, 0 to 1 (above it: over linear)."""
    per_rank = measured.rate.median / measured.case.np
    return per_rank / (baseline.rate.median / baseline.case.np)


def efficiency_spread(measured: Measured, baseline: Measured) -> Spread:
    """Return the efficiency of each repeat, against the baseline's of the same round."""
    rates = {repeat.repeat: repeat.rate / baseline.case.np for repeat in baseline.repeats}
    both = [repeat for repeat in measured.repeats if repeat.repeat in rates]
    if not both:
        return pairwise_ratios([efficiency(measured, baseline)], [1.0])
    return pairwise_ratios(
        [repeat.rate / measured.case.np for repeat in both],
        [rates[repeat.repeat] for repeat in both],
    )


def ideal_step_s(measured: Measured, baseline: Measured) -> float:
    """Return what a step would take without any loss (s); both have steps."""
    return baseline.step_s * _work_ratio(measured, baseline)


def ideal_parts(measured: Measured, baseline: Measured) -> dict[str, float] | None:
    """Return the parts that a step would have without any loss (s); None where unknown."""
    if baseline.parts_s is None or measured.work_per_step is None:
        return None
    ratio = _work_ratio(measured, baseline)
    return {part: baseline.parts_s[part] * ratio for part in PARTS}


def _work_ratio(measured: Measured, baseline: Measured) -> float:
    """Return a rank's work in a step over that of a rank of the baseline."""
    work = measured.work_per_step / measured.case.np
    return work / (baseline.work_per_step / baseline.case.np)


def lost_points(measured: Measured, baseline: Measured) -> Mapping[str, float] | None:
    """Return the percent points of efficiency that each part of the step took; gains negative.

    None where parts are unknown, and for the baseline itself.
    """
    ideal_s = ideal_parts(measured, baseline)
    if measured is baseline or measured.parts_s is None or ideal_s is None:
        return None
    return {
        part: 100 * (measured.parts_s[part] - ideal_s[part]) / measured.step_s for part in PARTS
    }
