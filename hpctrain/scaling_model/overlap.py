"""How much of the exchange hides behind backward, and how much is waited for?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# The moment of Horovod's cycle at which a bucket comes is chance: so many are tried and averaged.
PHASES = 16
SHORTEST_S = 1e-9  # cycles that are shorter count as none


@dataclass(frozen=True, slots=True)
class OverlapResult:
    """When each exchange starts and ends (s, since backward began), and what is waited for.

    Args:
        exposed_s: from the end of backward to the end of the last exchange.
    """

    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    exposed_s: float


def simulate_overlap(
    ready_s: Sequence[float],
    exchange_s: Sequence[float],
    *,
    backward_s: float | None = None,
    negotiation_s: float = 0.0,
    cycle_s: float = 0.0,
    at_start_s: Sequence[float] | None = None,
) -> OverlapResult:
    """Exchange buckets one after the other, each as soon as it is ready and the one before done.

    start_i = max(ready_i, end_{i-1}); exposed = end of the last - end of backward.

    Horovod's thread looks for work only once in `cycle_s`, and before every round of exchanges
    the ranks agree on what all of them have, which takes `negotiation_s` (Horovod 0.28.1,
    `horovod/common/operations.cc`, RunLoopOnce: cycles begin at least `cycle_s` apart, and each
    begins with an all-reduce of a bit a tensor). A bucket that comes later waits for the next.
    Where in a cycle buckets come is chance: the result is the mean over the possible moments.

    Args:
        ready_s: in the order in which backward fills the buckets, the last layer's first.
        backward_s: when backward ends; by default with the last bucket.
        at_start_s: of each exchange, what it saves right behind another one of the same round.

    >>> simulate_overlap([1.0, 2.0], [0.5, 0.5])
    OverlapResult(start_s=(1.0, 2.0), end_s=(1.5, 2.5), exposed_s=0.5)
    >>> simulate_overlap([1.0, 2.0], [3.0, 3.0]).exposed_s  # the second waits for the first
    5.0
    """
    if not ready_s:
        return OverlapResult((), (), 0.0)
    backward_s = max(ready_s) if backward_s is None else backward_s
    period_s = max(cycle_s, negotiation_s)
    phases = [(k + 0.5) / PHASES * period_s for k in range(PHASES)] if period_s > 0 else [0.0]
    if at_start_s is None:
        at_start_s = [0.0] * len(ready_s)
    tries = [
        _simulate(ready_s, exchange_s, at_start_s, phase_s, negotiation_s, cycle_s)
        for phase_s in phases
    ]
    starts = tuple(_mean(values) for values in zip(*(starts for starts, _ in tries), strict=True))
    ends = tuple(_mean(values) for values in zip(*(ends for _, ends in tries), strict=True))
    return OverlapResult(starts, ends, max(0.0, max(ends) - backward_s))


def _simulate(
    ready_s: Sequence[float],
    exchange_s: Sequence[float],
    at_start_s: Sequence[float],
    phase_s: float,
    negotiation_s: float,
    cycle_s: float,
) -> tuple[list[float], list[float]]:
    period_s = max(cycle_s, negotiation_s)
    starts, ends = [], []
    now_s, waiting = ready_s[0] + phase_s, 0
    while waiting < len(ready_s):
        late_s = ready_s[waiting] - now_s
        if late_s > 0:  # cycles that find nothing
            now_s += -(-late_s // period_s) * period_s if period_s > SHORTEST_S else late_s
        came = waiting + 1
        while came < len(ready_s) and ready_s[came] <= now_s:
            came += 1
        began_s = now_s
        now_s += negotiation_s
        for bucket in range(waiting, came):
            starts.append(now_s)
            now_s += exchange_s[bucket] - (at_start_s[bucket] if bucket > waiting else 0.0)
            ends.append(now_s)
        waiting = came
        now_s = max(now_s, began_s + cycle_s)
    return starts, ends


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
