"""Time batches of all-reduces and check every element, on all ranks alike."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from hpctrain.bench.allreduce.sizes import LEAST_REPEATS
from hpctrain.bench.allreduce.worker_backends import Backend
from hpctrain.bench.allreduce.worker_control import Control
from hpctrain.bench.allreduce.worker_pattern import Pattern

# A batch lasts at least so long: the ranks' uneven leaving of the barrier must not count.
BATCH_S = 2e-3


@dataclass(slots=True)
class Series:
    """One backend at one size, while it is measured."""

    backend: Backend
    numel: int
    count: int = 1
    times_s: list[float] = field(default_factory=list)
    wrong: int = 0
    checked: int = 0
    cost_s: float = 0.0
    """Of one repeat, with filling and checking."""


class Meter:
    """Times batches and checks them, on all ranks alike."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self._pattern = Pattern(control.rank, control.size)
        self._seed = 0

    def time_batch(self, series: Series) -> float:
        """Return one all-reduce's time (s) in a batch, on the slowest rank; counts what is wrong.

        Every element of every message is checked, also those of a warm-up.
        """
        began_s = time.perf_counter()
        backend = series.backend
        backend.lay_out(series.numel, series.count)
        self._seed += 1
        for number, message in enumerate(backend.host):
            self._pattern.fill(message, self._seed + number)
        backend.load()
        self.control.barrier()
        start_s = time.perf_counter()
        backend.run()
        elapsed_s = time.perf_counter() - start_s
        backend.fetch()
        wrong = sum(
            self._pattern.count_wrong(message, self._seed + number)
            for number, message in enumerate(backend.host)
        )
        cost_s = time.perf_counter() - began_s
        ranks = self.control.gather((elapsed_s, wrong, cost_s))
        series.wrong += sum(each[1] for each in ranks)
        series.checked += series.numel * series.count * len(ranks)
        series.cost_s = max(each[2] for each in ranks)
        return max(each[0] for each in ranks) / series.count

    def measure(
        self, all_series: Sequence[Series], most: int, repeats: int, share_s: float, left_s: float
    ) -> float:
        """Time all backends at one size, in turn, for about `share_s`.

        Args:
            most: messages that the pool holds.
            left_s: what is too long for this is tried once, and left at that.

        Returns:
            How long it would have taken (s), where it is left at that; else 0.
        """
        began_s = time.perf_counter()
        for series in all_series:
            self.time_batch(series)  # makes connections, touches memory
        foreseen_s = (1 + LEAST_REPEATS) * sum(series.cost_s for series in all_series)
        if foreseen_s > left_s:
            return foreseen_s
        for series in all_series:
            self._choose_count(series, most)
        for number in range(repeats):
            elapsed_s = self.control.first(time.perf_counter() - began_s)
            if number >= LEAST_REPEATS and elapsed_s > share_s:
                break
            # Whoever comes first in one repeat comes last in the next.
            for series in all_series[:: -1 if number % 2 else 1]:
                series.times_s.append(self.time_batch(series))
        return 0.0

    def _choose_count(self, series: Series, most: int) -> None:
        """Choose how many messages make a batch of BATCH_S."""
        for _ in range(2):  # from a batch of one alone the number would come out too small
            alone_s = self.time_batch(series)
            count = max(1, min(most, math.ceil(BATCH_S / alone_s)))
            if count == series.count:
                return
            series.count = count
