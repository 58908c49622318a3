"""What repeats say together: a median, its quartiles, and whether a difference is one.

Nothing here assumes a normal distribution: run times have long tails.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

WIDE_SPREAD = 0.10
"""Quartile range over the median from which on a size says nothing."""
FEW_REPEATS = 3
"""Fewer repeats have no spread to speak of."""
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Repeats of one figure, in the order in which they were measured."""

    values: tuple[float, ...]
    median: float
    q1: float
    q3: float

    @property
    def relative_range(self) -> float:
        """Quartile range over the median."""
        return (self.q3 - self.q1) / abs(self.median) if self.median else math.inf


@dataclass(frozen=True, kw_only=True, slots=True)
class RatioInterval:
    """How many times larger one figure is than another.

    Args:
        low, high: what holds the true ratio with `confidence`; None where the repeats are too few.
    """

    ratio: float
    low: float | None
    high: float | None
    confidence: float | None


def measure_spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles, the values themselves included (Hyndman and Fan's type 7).

    >>> spread = measure_spread([4.0, 1.0, 2.0, 3.0, 10.0])
    >>> spread.q1, spread.median, spread.q3
    (2.0, 3.0, 4.0)
    """
    if len(values) == 1:
        return Spread(values=tuple(values), median=values[0], q1=values[0], q3=values[0])
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(values=tuple(values), median=median, q1=q1, q3=q3)


def judge_spread(spread: Spread) -> str | None:
    """Return why nothing can be concluded from these repeats; None where something can.

    >>> judge_spread(measure_spread([100.0, 101.0, 99.0]))
    >>> judge_spread(measure_spread([100.0, 150.0, 60.0]))
    'the quartiles lie 45.0 % of the median apart, more than 10 %'
    """
    repeats = len(spread.values)
    if repeats < FEW_REPEATS:
        return f"{repeats} repeat{'' if repeats == 1 else 's'}: too few to tell a spread"
    if spread.relative_range > WIDE_SPREAD:
        return (
            f"the quartiles lie {spread.relative_range:.1%} of the median apart, more than "
            f"{WIDE_SPREAD:.0%}"
        ).replace("%", " %")
    return None


def middle_half(values: Sequence[float]) -> tuple[int, ...]:
    """Return where the middle half of the values stands, in order of place.

    The mean over it (the midmean; Tukey 1977, "Exploratory Data Analysis") forgets single slow
    steps as the median does, and unlike medians the midmeans of a step's parts add up.

    >>> middle_half([9.0, 1.0, 2.0, 3.0])
    (2, 3)
    """
    order = sorted(range(len(values)), key=lambda place: (values[place], place))
    cut = len(values) // 4
    return tuple(sorted(order[cut : len(order) - cut]))


def mean_at(values: Sequence[float], places: Sequence[int]) -> float:
    """Return the mean of the values that stand at `places`."""
    return math.fsum(values[place] for place in places) / len(places)


def pairwise_ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return the ratios of repeats that were measured one after the other."""
    return measure_spread([a / b for a, b in zip(above, below, strict=False)])


def estimate_ratio(above: Sequence[float], below: Sequence[float]) -> RatioInterval:
    """Return how many times larger `above` is than `below`, from repeats that are not pairs.

    The ratio is the median of all ratios between the two (Hodges and Lehmann 1963, "Estimates of
    Location Based on Rank Tests", on logarithms). The interval holds every ratio that the rank-sum
    test does not reject (Mann and Whitney 1947; Hollander and Wolfe 1999, "Nonparametric
    Statistical Methods", section 4.3): exact for any distribution, and the same each time.

    >>> estimate_ratio([2.0, 2.2, 2.1, 1.9, 2.0], [1.0, 1.1, 1.0, 1.0, 0.9]).ratio
    2.0
    >>> estimate_ratio([2.0, 2.1], [1.0, 1.1]).low is None  # no 95 % in two repeats
    True
    """
    ratios = sorted(a / b for a in above for b in below)
    ratio = statistics.median(ratios)
    if min(len(above), len(below)) < FEW_REPEATS:
        return RatioInterval(ratio=ratio, low=None, high=None, confidence=None)
    dropped, confidence = _drop_ratios(len(above), len(below))
    return RatioInterval(
        ratio=ratio, low=ratios[dropped], high=ratios[-1 - dropped], confidence=confidence
    )


def _drop_ratios(n: int, m: int) -> tuple[int, float]:
    """Return how many ratios to leave out at each end, and the confidence that this has.

    Three repeats against three give 90 % at most: then none is left out.
    """
    counts = _rank_sum_counts(n, m)
    total = sum(counts)
    tail, dropped = 0, 0
    while (1 - 2 * (tail + counts[dropped]) / total) >= CONFIDENCE:
        tail += counts[dropped]
        dropped += 1
    if dropped == 0:
        return 0, 1 - 2 * counts[0] / total
    return dropped - 1, 1 - 2 * tail / total


def _rank_sum_counts(n: int, m: int) -> list[int]:
    """Return in how many orders of n and m values the statistic U is 0, 1, … n·m.

    The coefficients of the Gaussian binomial of n + m over n: the number of partitions with at
    most n parts of at most m each.

    >>> _rank_sum_counts(2, 2)
    [1, 1, 2, 1, 1]
    """
    counts = [1] + [0] * (n * m)
    for part in range(1, n + 1):
        for total in range(n * m, m + part - 1, -1):
            counts[total] -= counts[total - m - part]
        for total in range(part, n * m + 1):
            counts[total] += counts[total - part]
    return counts
