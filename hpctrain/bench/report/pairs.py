"""Two measurements side by side: each precision against fp32, several nodes against one.

Trials of one round are neighbours in time, so ratios are taken round by round.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hpctrain.bench.report.measured import Measured
from hpctrain.bench.report.spread import RatioInterval, Spread, estimate_ratio, pairwise_ratios

BASE_PRECISION = "fp32"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One measurement over another, of equal size.

    Args:
        key, baseline: of which cases.
        what: in words, e.g. ``bf16 over fp32``.
        ratio: of the rates, round by round; above 1 the first is faster.
        interval: what the ratio may be, from all repeats of both.
        verdict: ``faster``, ``slower`` or ``no difference seen``, by the interval.
        loss_difference: largest relative difference of the losses, step by step, on the same
            seed; None where there are no losses to compare.
        loss_noise: the same between the baseline's own repeats: what chance alone does.
    """

    key: str
    baseline: str
    what: str
    ratio: Spread
    interval: RatioInterval
    verdict: str
    loss_difference: float | None = None
    loss_noise: float | None = None


def pair_precisions(measured: Sequence[Measured]) -> tuple[Pair, ...]:
    """Return each other precision against fp32, at the same mode, size and placement."""
    pairs = []
    for group in _groups(measured, lambda m: (m.case.mode, m.case.np, m.case.nodes)):
        base = next((m for m in group if m.case.precision == BASE_PRECISION), None)
        for other in group:
            if base is not None and other is not base and other.case.precision:
                what = f"{other.case.precision} over {BASE_PRECISION}"
                pairs.append(_pair(other, base, what, with_losses=True))
    return tuple(pairs)


def pair_placements(measured: Sequence[Measured]) -> tuple[Pair, ...]:
    """Return several nodes against the fewest, at the same mode, precision and np."""
    pairs = []
    for group in _groups(measured, lambda m: (m.case.mode, m.case.precision or "", m.case.np)):
        first, *others = sorted(group, key=lambda m: m.case.nodes)
        for other in others:
            what = f"{other.case.nodes} nodes over {first.case.nodes}"
            pairs.append(_pair(other, first, what, with_losses=False))
    return tuple(pairs)


def judge_ratio(interval: RatioInterval, smallest: float = 0.0) -> str:
    """Return what an interval says of a ratio of rates.

    Args:
        smallest: differences under this part are none, however certain.
    """
    if interval.low is None or interval.high is None:
        return "too few repeats to tell"
    if interval.low > 1 and interval.ratio >= 1 + smallest:
        return "faster"
    if interval.high < 1 and interval.ratio <= 1 - smallest:
        return "slower"
    return "no difference seen"


def largest_difference(
    losses: Sequence[float | None], others: Sequence[float | None]
) -> float | None:
    """Return the largest relative difference of two curves of losses, step by step.

    Steps without a loss in one of them are left out.

    >>> largest_difference([5.0, None, 3.0], [5.0, 4.0, 4.0])
    0.25
    """
    both = [(a, b) for a, b in zip(losses, others, strict=False) if a is not None and b]
    return max((abs(a - b) / abs(b) for a, b in both), default=None)


def _pair(measured: Measured, baseline: Measured, what: str, *, with_losses: bool) -> Pair:
    rates = {repeat.repeat: repeat.rate for repeat in baseline.repeats}
    both = [repeat for repeat in measured.repeats if repeat.repeat in rates]
    ratio = pairwise_ratios(
        [repeat.rate for repeat in both] or [measured.rate.median],
        [rates[repeat.repeat] for repeat in both] or [baseline.rate.median],
    )
    interval = estimate_ratio(measured.rate.values, baseline.rate.values)
    return Pair(
        key=measured.case.key, baseline=baseline.case.key, what=what, ratio=ratio,
        interval=interval, verdict=judge_ratio(interval),
        loss_difference=_loss_difference(measured, baseline) if with_losses else None,
        loss_noise=_loss_noise(baseline) if with_losses else None,
    )  # fmt: skip


def _loss_difference(measured: Measured, baseline: Measured) -> float | None:
    """Return the largest over all rounds that both have."""
    others = dict(zip((r.repeat for r in baseline.repeats), baseline.samples, strict=True))
    found = [
        largest_difference(sample.losses, others[repeat.repeat].losses)
        for repeat, sample in zip(measured.repeats, measured.samples, strict=True)
        if repeat.repeat in others
    ]
    return max((value for value in found if value is not None), default=None)


def _loss_noise(baseline: Measured) -> float | None:
    first, *others = baseline.samples
    found = [largest_difference(sample.losses, first.losses) for sample in others]
    return max((value for value in found if value is not None), default=None)


def _groups(
    measured: Sequence[Measured], key: Callable[[Measured], tuple[Any, ...]]
) -> Iterator[list[Measured]]:
    ordered = sorted(measured, key=key)
    for _, group in itertools.groupby(ordered, key=key):
        members = list(group)
        if len(members) > 1:
            yield members
