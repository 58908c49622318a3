"""Which ranks the others wait for: slower than the rest in their own work, and not by chance.

A rank's own work is its step without the exchange. Its slowness is that over the median of the
other ranks. A rank straggles where its median slowness over the repeats is

- at least SLOWER, below which nobody would go looking for it,
- more than BEYOND_SPREAD times the standard deviation of its slowness between repeats, and than
  that of the other ranks' slowness (both robust: quartile range or median deviation, scaled),
- and at least half of SLOWER in every repeat: what is slow once is noise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hpctrain.bench.report.parts import OWN_PARTS, find_missing_steps, own_times
from hpctrain.bench.report.spread import mean_at, measure_spread, middle_half
from hpctrain.bench.samples import Sample

SLOWER = 0.10
BEYOND_SPREAD = 3.0
# Of a normal distribution: quartile range and median absolute deviation over standard deviation
# (Rousseeuw and Croux 1993, "Alternatives to the Median Absolute Deviation").
IQR_TO_SD, MAD_TO_SD = 1 / 1.349, 1.4826


@dataclass(frozen=True, kw_only=True, slots=True)
class Straggler:
    """A rank that the others wait for.

    Args:
        slower: of its own work, than the median of the other ranks: 0.3 is 30 % slower.
        threshold: what it had to pass.
        part: the part in which it loses most.
    """

    rank: int
    host: str
    device: str
    slower: float
    threshold: float
    part: str


def find_stragglers(samples: Sequence[Sample]) -> tuple[Straggler, ...]:
    """Return the straggling ranks of one case, the slowest first.

    Args:
        samples: its repeats.
    """
    whole = [sample for sample in samples if sample.ranks and not find_missing_steps(sample)]
    if not whole or whole[0].np < 2:
        return ()
    own_s = [_own_s(sample) for sample in whole]
    slowness = [_slowness(times) for times in own_s]
    by_rank = list(zip(*slowness, strict=True))
    middle = [statistics.median(values) for values in by_rank]
    found = []
    for place, values in enumerate(by_rank):
        threshold = max(SLOWER, BEYOND_SPREAD * _noise(values, middle, place, whole))
        if middle[place] > threshold and min(values) > SLOWER / 2:
            rank = whole[0].ranks[place]
            found.append(
                Straggler(
                    rank=rank.rank, host=rank.host, device=rank.device, slower=middle[place],
                    threshold=threshold, part=_worst_part(whole, place),
                )
            )  # fmt: skip
    return tuple(sorted(found, key=lambda straggler: -straggler.slower))


def compute_without(samples: Sequence[Sample], ranks: Collection[int]) -> float | None:
    """Return how much of a step the ranks but these spend in forward and backward, 0 to 1.

    Args:
        samples: a case's repeats; the median over them.

    Returns:
        The mean over those ranks; None where no other rank reported its parts.
    """
    found = []
    for sample in samples:
        others = [rank for rank in sample.ranks if rank.rank not in ranks]
        if others and not find_missing_steps(sample):
            places = middle_half(sample.step_time_s)
            times = [
                mean_at(v, places) for rank in others for v in (rank.forward_s, rank.backward_s)
            ]
            step_s = mean_at(sample.step_time_s, places)
            found.append(math.fsum(times) / len(others) / step_s)
    return statistics.median(found) if found else None


def _own_s(sample: Sample) -> list[float]:
    places = middle_half(sample.step_time_s)
    return [mean_at(own_times(rank), places) for rank in sample.ranks]


def _slowness(times: Sequence[float]) -> list[float]:
    return [time / _others_median(times, place) - 1 for place, time in enumerate(times)]


def _others_median(values: Sequence[float], place: int) -> float:
    return statistics.median([*values[:place], *values[place + 1 :]])


def _noise(
    values: Sequence[float], middle: Sequence[float], place: int, samples: Sequence[Sample]
) -> float:
    """Return the standard deviation that this rank's median slowness has without a cause."""
    if len(values) > 1:
        spread = measure_spread(values)
        between_repeats = (spread.q3 - spread.q1) * IQR_TO_SD
    else:  # one repeat: what its steps differ by, as the error of their mean
        steps = _step_slowness(samples[0], place)
        spread = measure_spread(steps)
        between_repeats = (spread.q3 - spread.q1) * IQR_TO_SD / math.sqrt(len(steps))
    others = [*middle[:place], *middle[place + 1 :]]
    centre = statistics.median(others)
    between_ranks = statistics.median([abs(value - centre) for value in others]) * MAD_TO_SD
    return max(between_repeats, between_ranks)


def _step_slowness(sample: Sample, place: int) -> list[float]:
    steps = zip(*(own_times(rank) for rank in sample.ranks), strict=True)
    return [_slowness(times)[place] for times in steps]


def _worst_part(samples: Sequence[Sample], place: int) -> str:
    """Return the part in which this rank is furthest behind the others (s)."""

    def behind(part: str) -> float:
        total = 0.0
        for sample in samples:
            places = middle_half(sample.step_time_s)
            means = [mean_at(getattr(rank, f"{part}_s"), places) for rank in sample.ranks]
            total += means[place] - _others_median(means, place)
        return total

    return max(OWN_PARTS, key=behind)
