"""How long is the slowest of n ranks waited for?"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist


def expected_maximum(n: int) -> float:
    """Return the expected largest of n independent standard normal values.

    Blom's approximation (1958, "Statistical Estimates and Transformed Beta-Variables"), within
    0.03 of the exact value, and 0 for one.

    >>> expected_maximum(1), round(expected_maximum(8), 2), round(expected_maximum(1024), 2)
    (0.0, 1.43, 3.23)
    """
    return NormalDist().inv_cdf((n - 0.375) / (n + 0.25)) if n > 1 else 0.0


def jitter_of(times_s: Sequence[Sequence[float]]) -> float:
    """Return how much ranks differ within a step, relative to the mean (a standard deviation).

    What all ranks share, such as a step that is slow everywhere, does not count: nobody waits
    for it.

    Args:
        times_s: for each rank its time to compute, one value a step, all of one length.

    >>> jitter_of([[1.0, 2.0], [1.0, 2.0]])
    0.0
    >>> round(jitter_of([[0.9, 1.1], [1.1, 0.9]]), 3)
    0.141
    """
    n = len(times_s)
    steps = list(zip(*times_s, strict=True))
    if n < 2 or not steps:
        return 0.0
    means = [sum(step) / n for step in steps]
    squares = sum(
        (value - mean) ** 2 for step, mean in zip(steps, means, strict=True) for value in step
    )
    mean_s = sum(means) / len(means)
    return (squares / (len(steps) * (n - 1))) ** 0.5 / mean_s if mean_s else 0.0
