"""Least squares with no unknown below 0, for the three or four unknowns that we fit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def solve_non_negative(
    rows: Sequence[Sequence[float]], values: Sequence[float]
) -> tuple[float, ...]:
    """Return x >= 0 with the least sum of (row · x - value)².

    With so few unknowns every subset of them that may be above 0 is tried, which is exact
    (Lawson and Hanson 1974, chapter 23, gives the conditions that the best one meets).

    >>> [round(x, 9) for x in solve_non_negative([(1, 0), (1, 1), (1, 2)], [1, 3, 5])]
    [1.0, 2.0]
    >>> solve_non_negative([(1, 0), (1, 1)], [2, 1])  # a slope below 0 is refused
    (1.5, 0.0)
    """
    size = len(rows[0])
    best, best_error = (0.0,) * size, sum(value * value for value in values)
    for count in range(1, size + 1):
        for chosen in itertools.combinations(range(size), count):
            x = _solve(rows, values, chosen)
            if x is None or min(x) < 0.0:
                continue
            full = [0.0] * size
            for place, value in zip(chosen, x, strict=True):
                full[place] = value
            error = sum(
                (sum(a * b for a, b in zip(row, full, strict=True)) - value) ** 2
                for row, value in zip(rows, values, strict=True)
            )
            if error < best_error * (1 - 1e-12):
                best, best_error = tuple(full), error
    return best


def _solve(
    rows: Sequence[Sequence[float]], values: Sequence[float], chosen: Sequence[int]
) -> list[float] | None:
    """Solve the normal equations of the chosen columns, scaled to length 1; None if singular."""
    columns = [[row[place] for row in rows] for place in chosen]
    lengths = [sum(a * a for a in column) ** 0.5 for column in columns]
    if min(lengths) == 0.0:
        return None
    columns = [[a / length for a in col] for col, length in zip(columns, lengths, strict=True)]
    matrix = [
        [sum(a * b for a, b in zip(one, other, strict=True)) for other in columns]
        + [sum(a * b for a, b in zip(one, values, strict=True))]
        for one in columns
    ]
    size = len(matrix)
    for pivot in range(size):
        largest = max(range(pivot, size), key=lambda row: abs(matrix[row][pivot]))
        matrix[pivot], matrix[largest] = matrix[largest], matrix[pivot]
        if abs(matrix[pivot][pivot]) < 1e-10:
            return None
        for row in range(size):
            if row != pivot:
                factor = matrix[row][pivot] / matrix[pivot][pivot]
                matrix[row] = [
                    a - factor * b for a, b in zip(matrix[row], matrix[pivot], strict=True)
                ]
    return [matrix[i][size] / matrix[i][i] / lengths[i] for i in range(size)]
