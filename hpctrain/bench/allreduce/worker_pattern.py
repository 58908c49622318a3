"""Numbers to sum whose sum is known exactly, whichever order it is taken in.

Element i of rank r is ``(i + seed + 31 r) mod 251``: whole numbers whose sums fp32 holds exactly
(up to 67,000 ranks), that differ from rank to rank, from neighbour to neighbour, and with the
seed from repeat to repeat. As 251 is a prime, a block that lands elsewhere, comes twice, stays
away or is an old one shows.
"""

from __future__ import annotations

import numpy as np

PERIOD, RANK_SHIFT = 251, 31
_BLOCK = PERIOD * 4096  # elements compared at a time: 4 MiB


class Pattern:
    """What rank `rank` of `size` gives, and what all get."""

    def __init__(self, rank: int, size: int) -> None:
        steps = np.arange(PERIOD)
        total = np.zeros(PERIOD)
        for other in range(size):
            total += (steps + RANK_SHIFT * other) % PERIOD
        own = (steps + RANK_SHIFT * rank) % PERIOD
        self._own = np.tile(own.astype(np.float32), 4097)
        self._total = np.tile(total.astype(np.float32), 4097)

    def fill(self, message: np.ndarray, seed: int) -> None:
        """Write this rank's numbers into a message, (numel,) of fp32."""
        for start in range(0, len(message), _BLOCK):
            block = message[start : start + _BLOCK]
            first = (start + seed) % PERIOD
            block[:] = self._own[first : first + len(block)]

    def count_wrong(self, message: np.ndarray, seed: int) -> int:
        """Return how many elements are not the sum over all ranks; every one is compared."""
        wrong = 0
        for start in range(0, len(message), _BLOCK):
            block = message[start : start + _BLOCK]
            first = (start + seed) % PERIOD
            wrong += int(np.count_nonzero(block != self._total[first : first + len(block)]))
        return wrong
