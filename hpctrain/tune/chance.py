"""Could a gain be chance? A confidence bound over all candidates of the last rung together; pure.

The last rung is a table: a row a round, a column a candidate, logarithms of step times. What is
left of each value when its round's and its candidate's means are taken away is noise, and all of it
is pooled (analysis of variance of randomized blocks). Several candidates are compared with one
default, and the best one is looked at, so the bound is Bonferroni's: with k candidates each may be
wrong once in k / (1 - CONFIDENCE) times. Source: Dunnett (1955), "A multiple comparison procedure
for comparing several treatments with a control"; his bound, which needs tables, is a little
narrower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean

CONFIDENCE = 0.95


def least_gains(
    step_s: Sequence[Sequence[float]], pairs: Sequence[tuple[int, int]], comparisons: int
) -> list[float]:
    """Return how many times as fast one column is as another, at least, at CONFIDENCE.

    Args:
        step_s: a row a round, a column a candidate (s).
        pairs: (slower, faster) columns to compare.
        comparisons: how many are looked at before one is chosen.

    Returns:
        0.0 for each where there are too few rows to see any noise.

    >>> least_gains([[2.0, 1.0], [4.0, 2.0], [6.0, 3.0]], [(0, 1)], comparisons=1)
    [2.0]
    """
    rounds, columns = len(step_s), len(step_s[0]) if step_s else 0
    freedom = (rounds - 1) * (columns - 1)
    if freedom < 2:
        return [0.0] * len(pairs)
    logs = [[math.log(value) for value in row] for row in step_s]
    of_column = [fmean(row[column] for row in logs) for column in range(columns)]
    middle = fmean(of_column)
    rest = (
        row[column] - fmean(row) - of_column[column] + middle
        for row in logs
        for column in range(columns)
    )
    noise = math.sqrt(math.fsum(value**2 for value in rest) / freedom)
    width = student_quantile(1 - (1 - CONFIDENCE) / max(1, comparisons), freedom)
    width *= noise * math.sqrt(2 / rounds)
    gains = [of_column[slower] - of_column[faster] - width for slower, faster in pairs]
    return [float(f"{math.exp(gain):.12g}") for gain in gains]


def student_quantile(probability: float, freedom: int) -> float:
    """Return a quantile of Student's t distribution.

    Source: Abramowitz and Stegun (1964), 26.7.5: within 1 % from 4 degrees of freedom on.

    >>> round(student_quantile(0.975, 10), 2), round(student_quantile(0.99, 24), 2)
    (2.23, 2.49)
    """
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    terms = (first, second, third, fourth)
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
