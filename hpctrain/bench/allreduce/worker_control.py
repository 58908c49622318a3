"""How the ranks of an all-reduce measurement agree: a barrier, and everybody's word to everybody.

Nothing of it is timed.
"""

from __future__ import annotations

from typing import Any

from hpctrain.errors import PlanError
from hpctrain.train.communicator import check_size


class Control:
    """The interface, and what it comes to with one rank alone."""

    rank, size = 0, 1

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's value, by rank, on every rank."""
        return [value]

    def barrier(self) -> None:
        """Return when every rank has come here."""

    def first(self, value: Any) -> Any:
        """Return rank 0's value on every rank."""
        return self.gather(value)[0]


class MpiControl(Control):
    """Over mpi4py."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self._comm = MPI.COMM_WORLD.Dup()
        self.rank, self.size = self._comm.rank, self._comm.size
        library = MPI.Get_library_version().split(",")[0].strip()
        check_size(self.size, f"mpi4py ({library})")

    def gather(self, value: Any) -> list[Any]:
        return self._comm.allgather(value)

    def barrier(self) -> None:
        self._comm.Barrier()


class HorovodControl(Control):
    """Over Horovod."""

    def __init__(self) -> None:
        from hpctrain.train.comm_horovod import HorovodCommunicator

        import horovod.torch as hvd

        self._comm, self._hvd = HorovodCommunicator(), hvd
        self.rank, self.size = self._comm.rank, self._comm.size

    def gather(self, value: Any) -> list[Any]:
        return self._hvd.allgather_object(value, name="control")

    def barrier(self) -> None:
        self._comm.barrier()


class TorchControl(Control):
    """Over torch.distributed, on gloo."""

    def __init__(self) -> None:
        import torch.distributed as dist

        from hpctrain.bench.allreduce.worker_backends import torch_communicator

        self._comm, self._dist = torch_communicator(), dist
        self.rank, self.size = self._comm.rank, self._comm.size

    def gather(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        self._dist.all_gather_object(found, value)
        return found

    def barrier(self) -> None:
        self._comm.barrier()


CONTROLS = {"mpi4py": MpiControl, "horovod": HorovodControl, "torch": TorchControl}


def open_control(name: str) -> Control:
    """Return the control that the launcher chose, so that all ranks take the same.

    Raises:
        PlanError: this rank's host lacks what the launching machine has.
        LaunchError: the ranks do not find each other.
    """
    try:
        return CONTROLS[name]()
    except ImportError as problem:
        raise PlanError(
            f"bench allreduce: this host lacks what the launching one has: {problem}; expected "
            f"{name} in the same environment on every host. Install it there: make setup"
        ) from problem
