"""The communicator over Horovod, on whichever MPI or NCCL it was built with."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from hpctrain.cores import count_cores
from hpctrain.errors import LaunchError, PlanError
from hpctrain.launch.rank_env import find_rank
from hpctrain.train.communicator import Communicator, check_size

# What a core of a CPU computes, to an order of magnitude (FLOP/s).
CORE_FLOPS = 5e10
DEFAULT_CYCLE_MS, LONGEST_CYCLE_MS, CYCLES_A_STEP = 1.0, 10.0, 40
# Ranks of one host hand each other a message through memory; what both hold of a piece of this
# size stays in the cache (docs/bench-allreduce.md). Between hosts a piece would cost round trips.
PIECE_BYTES = 4 << 20


class HorovodCommunicator(Communicator):
    """What the interface asks for, in Horovod's words."""

    backend = "horovod"

    def __init__(self, cpu_flops: float | None = None, *, fuses: bool = False) -> None:
        """
        Args:
            cpu_flops: what a step computes on this rank's CPU (FLOPs); None on a GPU, and where
                it is unknown.
            fuses: whether Horovod is to copy small tensors together.
        """
        if not fuses:  # buckets are large already: it would only copy them once more
            os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
        if cpu_flops is not None:
            cycle_ms = choose_cycle_ms(cpu_flops, count_threads())
            os.environ.setdefault("HOROVOD_CYCLE_TIME", f"{cycle_ms:.1f}")
        try:
            import horovod.torch as hvd
            from horovod.common.exceptions import HorovodInternalError
        except ImportError as problem:
            raise PlanError(
                f"comm.backend: Horovod cannot be imported: {problem}. Run: hpctrain "
                "install-horovod, or train on one rank with --set comm.backend=none."
            ) from problem
        self._hvd, self._error = hvd, HorovodInternalError
        hvd.init()
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        check_size(self.size, f"Horovod ({mpi_library() or 'an unknown MPI'})")

    def all_reduce_sum_async(self, tensor: Tensor, name: str) -> Any:
        with self.explained():
            start, op = self._hvd.allreduce_async_, self._hvd.Sum
            if self.local_size < self.size or not is_cut(tensor):
                return start(tensor, op=op, name=name)
            pieces = tensor.view(-1).split(PIECE_BYTES // tensor.element_size())
            handles = [start(each, op=op, name=f"{name}.{i}") for i, each in enumerate(pieces)]
            return Pieces(tensor, handles)

    def reduce_scatter_sum_async(self, tensor: Tensor, name: str) -> Any:
        with self.explained():
            return self._hvd.reducescatter_async(tensor, op=self._hvd.Sum, name=name)

    def all_gather_async(self, tensor: Tensor, name: str) -> Any:
        with self.explained():
            return self._hvd.allgather_async(tensor, name=name)

    def wait(self, handle: Any) -> Tensor:
        with self.explained():
            if not isinstance(handle, Pieces):
                return self._hvd.synchronize(handle)
            for each in handle.handles:
                self._hvd.synchronize(each)
            return handle.tensor

    def broadcast(self, tensor: Tensor, name: str, root: int = 0) -> Tensor:
        with self.explained():
            return self._hvd.broadcast_(tensor, root_rank=root, name=name)

    def barrier(self) -> None:
        with self.explained():
            self._hvd.barrier()

    def shutdown(self) -> None:
        self._hvd.shutdown()

    def _is_broken_exchange(self, problem: RuntimeError) -> bool:
        return isinstance(problem, self._error)


class Pieces(NamedTuple):
    """A tensor whose parts are exchanged one by one, in place."""

    tensor: Tensor
    handles: list[Any]


def is_cut(tensor: Tensor) -> bool:
    """Return whether an exchange inside one host is faster in pieces: large, on the CPU."""
    return tensor.device.type == "cpu" and tensor.nbytes > PIECE_BYTES and tensor.is_contiguous()


def mpi_library() -> str | None:
    """Return the version of the MPI library in this process, e.g. ``Open MPI v5.0.11``."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    path = re.search(r"/\S*/libmpi\.so\S*", maps)
    if path is None:
        return None
    text = ctypes.create_string_buffer(8192)
    try:
        ctypes.CDLL(path.group()).MPI_Get_library_version(text, ctypes.byref(ctypes.c_int()))
    except (OSError, AttributeError):
        return Path(path.group()).name
    return re.split(r"[,\n]", text.value.decode(errors="replace"), maxsplit=1)[0].strip()


def count_threads() -> int:
    """Return how many threads this rank will compute with on a CPU."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit():
        return max(1, int(given))
    try:
        return max(1, count_cores() // find_rank(os.environ).local_size)
    except LaunchError:  # started by hand, alone
        return count_cores()


def choose_cycle_ms(step_flops: float, threads: int) -> float:
    """Return how often Horovod's thread should look for work (ms), on a CPU.

    Each cycle the ranks' threads wait for one another, awake, and on full cores that time is
    taken from the ranks that compute: up to a third of it was seen at Horovod's default of 1 ms
    (docs/tuning.md). But an exchange waits for the next cycle, so short steps keep short ones.

    >>> choose_cycle_ms(33e9, threads=1), choose_cycle_ms(1e9, threads=1)
    (10.0, 1.0)
    """
    step_ms = 1e3 * step_flops / (CORE_FLOPS * threads)
    return min(max(step_ms / CYCLES_A_STEP, DEFAULT_CYCLE_MS), LONGEST_CYCLE_MS)
