"""How ranks talk: Horovod, torch.distributed, or nobody. The loop does not know which."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
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
        return tensor

    def reduce_scatter_sum_async(self, tensor: Tensor, name: str) -> Any:
        """Start to sum `tensor`, (size · n,), over all ranks; the handle's result is part
        `rank` of the sum, (n,)."""
        return tensor

    def all_gather_async(self, tensor: Tensor, name: str) -> Any:
        """Start to join every rank's `tensor`, (n,); the handle's result is (size · n,)."""
        return tensor

    def wait(self, handle: Any) -> Tensor:
        """Return the result of the exchange behind `handle` once it is complete."""
        return handle

    def broadcast(self, tensor: Tensor, name: str, root: int = 0) -> Tensor:
        """Replace `tensor` by rank `root`'s, in place, and return it."""
        return tensor

    def barrier(self) -> None:
        """Return when every rank has come here."""

    def shutdown(self) -> None:
        """Leave; the last call."""

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the library's errors into one that says what they mean: another rank has left.

        Raises:
            OtherRankError: in place of the library's error.
        """
        try:
            yield
        except RuntimeError as problem:
            if not self._is_broken_exchange(problem):
                raise
            raise OtherRankError(
                f"rank {self.rank}: stopped because the exchange with the other ranks broke: "
                f"{problem}. The rank that stopped first says why."
            ) from problem

    def _is_broken_exchange(self, problem: RuntimeError) -> bool:
        return False


def open_communicator(
    backend: str, device: str = "auto", rank_flops: float | None = None, *, fuses: bool = False
) -> Communicator:
    """Return the communicator that `comm.backend` names, connected.

    Args:
        device: `train.device`; `cpu` keeps torch.distributed off the GPUs.
        rank_flops: what a step computes on one rank (FLOPs), where it is known.
        fuses: whether many small tensors will be exchanged, which Horovod is to join.

    Raises:
        PlanError: Horovod is missing, or several ranks are to run without a backend.
        LaunchError: the ranks do not find each other.
    """
    on_gpu = device != "cpu" and torch.cuda.is_available()
    # Late, so that a run needs only the libraries of its own backend.
    if backend == "horovod":
        from hpctrain.train.comm_horovod import HorovodCommunicator

        return HorovodCommunicator(None if on_gpu else rank_flops, fuses=fuses, pins=not on_gpu)
    if backend == "ddp":
        from hpctrain.train.comm_torch import TorchCommunicator

        return TorchCommunicator(on_gpu=on_gpu)
    expected, _ = launched_size()
    if expected > 1:
        raise PlanError(
            f"comm.backend: 'none' is for one rank, got {expected} ranks; expected 'horovod' or "
            "'ddp'. Start one rank, or set comm.backend=horovod."
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
