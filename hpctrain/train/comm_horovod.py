"""The communicator over Horovod, on whichever MPI or NCCL it was built with."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from hpctrain.errors import PlanError
from hpctrain.train.communicator import Communicator, check_size


class HorovodCommunicator(Communicator):
    """What the interface asks for, in Horovod's words."""

    backend = "horovod"

    def __init__(self) -> None:
        # Buckets are large already: Horovod would only copy them together once more.
        os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
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
            return self._hvd.allreduce_async_(tensor, op=self._hvd.Sum, name=name)

    def reduce_scatter_sum_async(self, tensor: Tensor, name: str) -> Any:
        with self.explained():
            return self._hvd.reducescatter_async(tensor, op=self._hvd.Sum, name=name)

    def all_gather_async(self, tensor: Tensor, name: str) -> Any:
        with self.explained():
            return self._hvd.allgather_async(tensor, name=name)

    def wait(self, handle: Any) -> Tensor:
        with self.explained():
            return self._hvd.synchronize(handle)

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
