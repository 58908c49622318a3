"""How the ranks of an all-reduce measurement agree: a barrier, and everybody's word to everybody.

Nothing of it is timed.
"""

from __future__ import annotations

import os
from typing import Any

from hpctrain.errors import LaunchError, PlanError
from hpctrain.launch.rank_env import find_rank


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
        started = find_rank(os.environ).size
        if self.size != started:  # each would measure alone
            library = MPI.Get_library_version().split(",")[0].strip()
            raise LaunchError(
                f"ranks: did not find each other, got size {self.size} from mpi4py ({library}); "
                f"expected {started}. Start them with the mpirun of the MPI that mpi4py finds."
            )

    def gather(self, value: Any) -> list[Any]:
        return self._comm.allgather(value)

    def barrier(self) -> None:
        self._comm.Barrier()


class HorovodControl(Control):
    """Over Horovod."""

    def __init__(self) -> None:
        from hpctrain.bench.allreduce.worker_backends import horovod_communicator

        self._comm = horovod_communicator()
        import horovod.torch as hvd

        self._hvd = hvd
        self.rank, self.size = self._comm.rank, self._comm.size

    def gather(self, value: Any) -> list[Any]:
        return self._hvd.allgather_object(value, name="control")

    def barrier(self) -> None:
        self._comm.barrier()


class TorchControl(Control):
    """Over torch.distributed, on gloo."""

    def __init__(self, on_gpu: bool) -> None:
        import torch.distributed as dist

        from hpctrain.bench.allreduce.worker_backends import torch_communicator

        self._comm, self._dist = torch_communicator(on_gpu), dist
        self.rank, self.size = self._comm.rank, self._comm.size

    def gather(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        self._dist.all_gather_object(found, value)
        return found

    def barrier(self) -> None:
        self._comm.barrier()


def open_control(name: str, *, on_gpu: bool) -> Control:
    """Return the control that the launcher chose, so that all ranks take the same.

    Raises:
        PlanError: this rank's host lacks what the launching machine has.
        LaunchError: the ranks do not find each other.
    """
    try:
        if name == "torch":
            return TorchControl(on_gpu)
        return MpiControl() if name == "mpi4py" else HorovodControl()
    except ImportError as problem:
        raise PlanError(
            f"bench allreduce: this host lacks what the launching one has: {problem}; expected "
            f"{name} in the same environment on every host. Install it there: make setup"
        ) from problem
