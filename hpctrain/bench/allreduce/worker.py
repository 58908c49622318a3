"""The rank side of ``hpctrain bench allreduce``: time every backend at every size, check all.

Started on every rank by :mod:`hpctrain.bench.allreduce.measure`; rank 0 reports.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpctrain.bench.allreduce.sizes import ELEMENT_BYTES
from hpctrain.bench.allreduce.worker_backends import (
    Backend,
    close_communicators,
    message_stride,
    open_backends,
    why_absent,
)
from hpctrain.bench.allreduce.worker_control import Control, open_control
from hpctrain.bench.allreduce.worker_facts import describe_environment, describe_placement, fits
from hpctrain.bench.allreduce.worker_meter import Meter, Series
from hpctrain.errors import BenchError, HpctrainError, raise_all
from hpctrain.events import emit, report_step

POOL_BYTES = 32 << 20  # at least; small messages are spread over it
STEEP_BYTES = 1 << 16  # from here on time is taken to grow with the size


def run_worker(
    control: Control, backends: Sequence[Backend], sizes: Sequence[int], repeats: int,
    budget_s: float, pool_bytes: int,
) -> None:  # fmt: skip
    """Measure every size, smallest first, and report from rank 0.

    A size that would take longer than what is left of the budget is left out and named.
    """
    meter = Meter(control)
    end_s = time.perf_counter() + budget_s
    round_s, before, done = 0.0, sizes[0], 0
    for place, size in enumerate(sizes):
        left_s = control.first(end_s - time.perf_counter())
        growth = size / before if before >= STEEP_BYTES else 1.0
        foreseen_s = round_s * growth if round_s * growth > left_s else 0.0
        if not foreseen_s:
            series = [Series(backend, size // ELEMENT_BYTES) for backend in backends]
            most = pool_bytes // (message_stride(size // ELEMENT_BYTES) * ELEMENT_BYTES)
            share_s = left_s / (len(sizes) - place)
            foreseen_s = meter.measure(series, most, repeats, share_s, left_s)
            _refuse_wrong(series, size, foreseen_s)
        if foreseen_s:
            if control.rank == 0:
                _report_too_long(backends, sizes[place:], foreseen_s, left_s)
            return
        round_s, before = sum(each.cost_s for each in series), size
        done += len(series)
        if control.rank == 0:
            _report(series, size, control.size, done)


def _refuse_wrong(all_series: Sequence[Series], size: int, foreseen_s: float) -> None:
    """Let no wrong sum pass with a size that is left out."""
    if not foreseen_s:
        return  # it is reported with its point
    raise_all(
        BenchError,
        [
            f"{each.backend.name}: wrong sums at {size} bytes, got {each.wrong} wrong of "
            f"{each.checked} elements; expected none."
            for each in all_series
            if each.wrong
        ],
    )


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
    control = open_control(asked.control, on_gpu=device is not None and device.type == "cuda")
    names = agree_on_backends(control, asked.backends.split(","))
    wanted = sorted(map(int, asked.sizes.split(",")))
    sizes = agree_on_sizes(control, names, wanted, rank.local_size, device)
    if names and sizes:
        pool_bytes = max(POOL_BYTES, sizes[-1])
        pool = np.zeros(pool_bytes // ELEMENT_BYTES, dtype=np.float32)
        backends = open_backends(names, pool, device)
        run_worker(control, backends, sizes, asked.repeats, asked.budget, pool_bytes)
    hosts = control.gather(socket.gethostname())
    if control.rank == 0:
        emit(
            "allreduce_done", n=control.size, nodes=len(set(hosts)),
            placement=describe_placement(hosts), environment=describe_environment(device),
        )  # fmt: skip
    control.barrier()
    close_communicators()


if __name__ == "__main__":
    sys.exit(main())
