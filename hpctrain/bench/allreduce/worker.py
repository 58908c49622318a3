"""The rank side of ``hpctrain bench allreduce``: time every backend at every size, check all.

Started on every rank by :mod:`hpctrain.bench.allreduce.measure`; rank 0 reports.
"""

from __future__ import annotations

import argparse
import math
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpctrain.bench.allreduce.sizes import ELEMENT_BYTES, LEAST_REPEATS
from hpctrain.bench.allreduce.worker_backends import (
    Backend,
    message_stride,
    open_backend,
    why_absent,
)
from hpctrain.bench.allreduce.worker_control import Control, open_control
from hpctrain.bench.allreduce.worker_facts import describe_environment, describe_placement, fits
from hpctrain.bench.allreduce.worker_pattern import Pattern
from hpctrain.errors import HpctrainError
from hpctrain.events import emit, report_step

# A batch lasts at least so long: the ranks' uneven leaving of the barrier must not count.
BATCH_S = 2e-3
POOL_BYTES = 32 << 20  # at least; small messages are spread over it
GROWTH = 4.0  # how much longer the next size is taken to last, before it is tried


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

    def warm_up(self, series: Series, most: int) -> None:
        """Make connections, touch memory, and choose how many messages a batch needs.

        Args:
            most: messages that the pool holds.
        """
        self.time_batch(series)
        for _ in range(2):  # from a batch of one alone the number would come out too small
            alone_s = self.time_batch(series)
            series.count = max(1, min(most, math.ceil(BATCH_S / alone_s)))
        self.time_batch(series)

    def measure(self, all_series: Sequence[Series], most: int, repeats: int, share_s: float) -> int:
        """Time all backends at one size, in turn; return the number of repeats.

        Args:
            share_s: about so long for this size.
        """
        began_s = time.perf_counter()
        for series in all_series:
            self.warm_up(series, most)
        left_s = share_s - (time.perf_counter() - began_s)
        wanted = int(left_s / sum(series.cost_s for series in all_series))
        repeats = self.control.first(max(LEAST_REPEATS, min(repeats, wanted)))
        for number in range(repeats):
            # Whoever comes first in one repeat comes last in the next.
            for series in all_series[:: -1 if number % 2 else 1]:
                series.times_s.append(self.time_batch(series))
        return repeats


def run_worker(
    control: Control, backends: Sequence[Backend], sizes: Sequence[int], repeats: int,
    budget_s: float, pool_bytes: int,
) -> None:  # fmt: skip
    """Measure every size, smallest first, and report from rank 0.

    A size that would take longer than what is left of the budget is left out and named.
    """
    meter = Meter(control)
    end_s = time.perf_counter() + budget_s
    foreseen_s, done = 0.0, 0
    for place, size in enumerate(sizes):
        left_s = control.first(end_s - time.perf_counter())
        if foreseen_s > left_s:
            if control.rank == 0:
                _report_too_long(backends, sizes[place:], foreseen_s, left_s)
            return
        began_s = time.perf_counter()
        series = [Series(backend, size // ELEMENT_BYTES) for backend in backends]
        most = pool_bytes // (message_stride(size // ELEMENT_BYTES) * ELEMENT_BYTES)
        made = meter.measure(series, most, repeats, left_s / (len(sizes) - place))
        took_s = control.first(time.perf_counter() - began_s)
        # At the least: warming up and LEAST_REPEATS repeats of a size four times as large.
        foreseen_s = GROWTH * took_s * (LEAST_REPEATS + 4) / (made + 4)
        done += len(series)
        if control.rank == 0:
            _report(series, size, control.size, done)


def _report(all_series: Sequence[Series], size: int, n: int, done: int) -> None:
    for series in all_series:
        emit(
            "allreduce_point", backend=series.backend.name, bytes=size, repeats_s=series.times_s,
            wrong=series.wrong, checked=series.checked, n=n, iterations=series.count,
            device=series.backend.device,
        )  # fmt: skip
    report_step(done)


def _report_too_long(
    backends: Sequence[Backend], sizes: Sequence[int], foreseen_s: float, left_s: float
) -> None:
    reason = (
        f"it would take about {foreseen_s:.0f} s, got {max(left_s, 0):.0f} s left of the budget"
    )
    for size in sizes:
        for backend in backends:
            emit("allreduce_skipped", backend=backend.name, bytes=size, reason=reason)


def agree_on_backends(control: Control, names: Sequence[str]) -> list[str]:
    """Return the backends that every rank has; rank 0 reports the others with a reason."""
    usable = []
    for name in names:
        words = control.gather((socket.gethostname(), why_absent(name)))
        absent = [(host, why) for host, why in words if why]
        if not absent:
            usable.append(name)
        elif control.rank == 0:
            host, why = absent[0]
            where = "" if len(absent) == control.size else f"on {host}: "
            emit("allreduce_skipped", backend=name, bytes=None, reason=f"{where}{why}")
    return usable


def agree_on_sizes(
    control: Control, names: Sequence[str], sizes: Sequence[int], local_size: int, device: Any
) -> list[int]:
    """Return the sizes that every host's memory holds; rank 0 reports the others."""
    found = []
    for size in sizes:
        reasons = [why for why in control.gather(fits(size, local_size, device)) if why]
        if not reasons:
            found.append(size)
        elif control.rank == 0:
            for name in names:
                emit("allreduce_skipped", backend=name, bytes=size, reason=reasons[0])
    return found


def find_device(wanted: str, rank: Any) -> Any:
    """Return this rank's device; None without torch, where only mpi4py can be measured."""
    try:
        from hpctrain.train.device import choose_device
    except ImportError:
        return None
    return choose_device(wanted, rank.local_rank, rank.local_size)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure on this rank; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backends", required=True)
    parser.add_argument("--sizes", required=True)
    parser.add_argument("--repeats", type=int, required=True)
    parser.add_argument("--budget", type=float, required=True)
    asked = parser.parse_args(argv)
    try:
        _measure(asked)
    except HpctrainError as problem:
        print("\n".join(problem.messages), file=sys.stderr)
        return problem.exit_code
    return 0


def _measure(asked: argparse.Namespace) -> None:
    from hpctrain.launch.rank_env import find_rank

    rank = find_rank(os.environ)
    device = find_device(asked.device, rank)
    control = open_control(asked.control)
    names = agree_on_backends(control, asked.backends.split(","))
    wanted = sorted(map(int, asked.sizes.split(",")))
    sizes = agree_on_sizes(control, names, wanted, rank.local_size, device)
    if names and sizes:
        pool_bytes = max(POOL_BYTES, sizes[-1])
        pool = np.zeros(pool_bytes // ELEMENT_BYTES, dtype=np.float32)
        backends = [open_backend(name, pool, device) for name in names]
        run_worker(control, backends, sizes, asked.repeats, asked.budget, pool_bytes)
    hosts = control.gather(socket.gethostname())
    if control.rank == 0:
        emit(
            "allreduce_done", n=control.size, nodes=len(set(hosts)),
            placement=describe_placement(hosts), environment=describe_environment(device),
        )  # fmt: skip
    control.barrier()


if __name__ == "__main__":
    sys.exit(main())
