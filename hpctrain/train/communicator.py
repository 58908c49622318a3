"""How ranks talk: Horovod over MPI, or nobody to talk to. The loop does not know which."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from hpctrain.errors import LaunchError, OtherRankError, PlanError

SIZE_VARIABLE = "HPCTRAIN_SIZE"
# What each launcher tells its processes, where hpctrain has not started them itself.
_LAUNCHER_SIZE_VARIABLES = {"OMPI_COMM_WORLD_SIZE": "Open MPI", "PMI_SIZE": "MPICH or Intel MPI"}


class Communicator:
    """The interface, and what it comes to with a single rank: nothing to do.

    `name` pairs up tensors between ranks: use one name for one purpose, the same every step.
    """

    backend = "none"
    rank, local_rank, size, local_size = 0, 0, 1, 1

    def all_reduce_sum(self, tensor: Tensor, name: str) -> Tensor:
        """Replace `tensor` by its sum over all ranks, in place, and return it."""
        self.wait(self.all_reduce_sum_async(tensor, name))
        return tensor

    def all_reduce_sum_async(self, tensor: Tensor, name: str) -> Any:
        """Start the same and return a handle; leave `tensor` alone until :meth:`wait`."""
        return None

    def wait(self, handle: Any) -> None:
        """Return when the exchange behind `handle` is complete."""

    def broadcast(self, tensor: Tensor, name: str, root: int = 0) -> Tensor:
        """Replace `tensor` by rank `root`'s, in place, and return it."""
        return tensor

    def barrier(self) -> None:
        """Return when every rank has come here."""

    def shutdown(self) -> None:
        """Leave; the last call."""


class HorovodCommunicator(Communicator):
    """Horovod, on whichever MPI or NCCL it was built with."""

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
        with self._explained():
            return self._hvd.allreduce_async_(tensor, op=self._hvd.Sum, name=name)

    def wait(self, handle: Any) -> None:
        with self._explained():
            self._hvd.synchronize(handle)

    def broadcast(self, tensor: Tensor, name: str, root: int = 0) -> Tensor:
        with self._explained():
            return self._hvd.broadcast_(tensor, root_rank=root, name=name)

    def barrier(self) -> None:
        with self._explained():
            self._hvd.barrier()

    def shutdown(self) -> None:
        self._hvd.shutdown()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what Horovod's errors mean: another rank has left."""
        try:
            yield
        except self._error as problem:
            raise OtherRankError(
                f"rank {self.rank}: stopped because the exchange with the other ranks broke: "
                f"{problem}. The rank that stopped first says why."
            ) from problem


def open_communicator(backend: str) -> Communicator:
    """Return the communicator that `comm.backend` names, connected.

    Raises:
        PlanError: Horovod is missing, or several ranks are to run without a backend.
        LaunchError: the ranks do not find each other.
    """
    if backend == "horovod":
        return HorovodCommunicator()
    expected, _ = launched_size()
    if expected > 1:
        raise PlanError(
            f"comm.backend: 'none' is for one rank, got {expected} ranks; expected 'horovod'. "
            "Start one rank, or set comm.backend=horovod."
        )
    return Communicator()


def launched_size() -> tuple[int, str]:
    """Return how many ranks the launcher started, and the launcher's name; 1 if none did."""
    mpi = next((mpi for name, mpi in _LAUNCHER_SIZE_VARIABLES.items() if name in os.environ), None)
    for name in (SIZE_VARIABLE, *_LAUNCHER_SIZE_VARIABLES):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name]), mpi or "an unknown MPI"
    return 1, "no launcher"


def check_size(size: int, who: str) -> None:
    """Prove that as many ranks found each other as were started.

    A library built for one MPI and started by another's mpirun forms n groups of one rank,
    each of which would train alone and write over the others.

    Raises:
        LaunchError: naming both numbers and both MPIs.
    """
    expected, launcher = launched_size()
    if size != expected:
        raise LaunchError(
            f"ranks: did not find each other, got size {size} from {who}; expected {expected} "
            f"as started by {launcher}. Start them with the mpirun of the MPI that Horovod was "
            "built with, or rebuild it: hpctrain install-horovod."
        )


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
