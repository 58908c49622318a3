"""The libraries that are measured: each sums one message over all ranks, in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hpctrain.errors import HpctrainError

LINE_BYTES = 64  # messages begin on cache lines


class Backend:
    """The interface. A batch is as many messages as are timed together, each in its own place.

    Results of one all-reduce never enter the next one, so all of them can be checked. And as in
    nccl-tests, no message finds the one before it in its place in the cache.
    """

    name = ""
    device = "cpu"

    def __init__(self, pool: np.ndarray) -> None:
        """
        Args:
            pool: (numel,) of fp32 on the host; the messages lie in it.
        """
        self._pool = pool

    def lay_out(self, numel: int, count: int) -> None:
        """Choose the places of a batch of `count` messages of `numel` elements."""
        stride = message_stride(numel)
        self.host = [self._pool[i * stride : i * stride + numel] for i in range(count)]
        self._messages = [self.as_message(each) for each in self._places(numel, count)]

    def load(self) -> None:
        """Bring what was written into `host` to where the library takes it from."""

    def run(self) -> None:
        """Sum every message of the batch, one after the other; return when all are there."""
        reduce = self.reduce
        for message in self._messages:
            reduce(message)

    def fetch(self) -> None:
        """Bring the sums to `host`."""

    def as_message(self, place: Any) -> Any:
        """Return the message as the library takes it."""
        return place

    def reduce(self, message: Any) -> None:
        raise NotImplementedError

    def _places(self, numel: int, count: int) -> list[Any]:
        return self.host


class Mpi4pyBackend(Backend):
    """MPI_Allreduce in place, on memory of the host."""

    name = "mpi4py"

    def __init__(self, pool: np.ndarray) -> None:
        from mpi4py import MPI

        super().__init__(pool)
        self._comm, self._in_place, self._float = MPI.COMM_WORLD.Dup(), MPI.IN_PLACE, MPI.FLOAT

    def as_message(self, place: np.ndarray) -> Any:
        return [place, self._float]

    def reduce(self, message: Any) -> None:
        self._comm.Allreduce(self._in_place, message)


class TensorBackend(Backend):
    """Messages are tensors, on the rank's GPU where it has one."""

    def __init__(self, pool: np.ndarray, tensor: Any) -> None:
        """
        Args:
            tensor: the pool itself, or as large a one on the rank's GPU.
        """
        import torch

        super().__init__(pool)
        self._torch, self._host, self._tensor = torch, torch.from_numpy(pool), tensor
        self.device = tensor.device.type

    def _places(self, numel: int, count: int) -> list[Any]:
        stride = message_stride(numel)
        self._used = count * stride
        return [self._tensor[i * stride : i * stride + numel] for i in range(count)]

    def load(self) -> None:
        if self.device != "cpu":
            self._tensor[: self._used].copy_(self._host[: self._used])
            self._torch.cuda.synchronize()

    def run(self) -> None:
        # What is in flight on the device must neither enter the time nor be left out of it.
        super().run()
        if self.device != "cpu":
            self._torch.cuda.synchronize()

    def fetch(self) -> None:
        if self.device != "cpu":
            self._host[: self._used].copy_(self._tensor[: self._used])


class TorchBackend(TensorBackend):
    """torch.distributed: gloo between CPUs, NCCL between GPUs."""

    name = "torch"

    def __init__(self, pool: np.ndarray, tensor: Any) -> None:
        super().__init__(pool, tensor)
        torch_communicator(self.device == "cuda")
        self._dist = self._torch.distributed

    def reduce(self, message: Any) -> None:
        self._dist.all_reduce(message)


class HorovodBackend(TensorBackend):
    """``hvd.allreduce_`` as it is."""

    name = "horovod"

    def __init__(self, pool: np.ndarray, tensor: Any) -> None:
        super().__init__(pool, tensor)
        self._comm = horovod_communicator()
        import horovod.torch as hvd

        self._hvd = hvd

    def as_message(self, place: Any) -> Any:
        return place, f"{self.name}.{place.numel()}"

    def reduce(self, message: Any) -> None:
        tensor, name = message
        self._hvd.allreduce_(tensor, op=self._hvd.Sum, name=name)


class BucketsBackend(HorovodBackend):
    """What hpctrain's trainer does with a bucket of gradients: its own calls of Horovod."""

    name = "buckets"

    def reduce(self, message: Any) -> None:
        tensor, name = message
        self._comm.all_reduce_sum(tensor, name)


BACKENDS = {
    each.name: each for each in (HorovodBackend, Mpi4pyBackend, TorchBackend, BucketsBackend)
}


def message_stride(numel: int) -> int:
    """Return from how many elements on the next message lies.

    >>> message_stride(1), message_stride(16), message_stride(17)
    (16, 16, 32)
    """
    unit = LINE_BYTES // 4
    return -(-numel // unit) * unit


def open_backends(names: Sequence[str], pool: np.ndarray, device: Any) -> list[Backend]:
    """Return backends, connected. They use the same memory, in turn.

    Args:
        device: torch's device of this rank; None where torch is missing.
    """
    tensor = None
    if device is not None:
        import torch

        tensor = torch.from_numpy(pool)
        tensor = tensor if device.type == "cpu" else tensor.to(device)
    kinds = [BACKENDS[name] for name in names]
    return [k(pool, tensor) if issubclass(k, TensorBackend) else k(pool) for k in kinds]


def why_absent(name: str) -> str:
    """Return why this rank cannot use a backend, by importing what it needs; "" if it can."""
    try:
        if name == "mpi4py":
            from mpi4py import MPI  # noqa: F401
        elif name == "torch":
            import torch.distributed as dist

            if not dist.is_available():
                return "this torch was built without torch.distributed"
        elif name in ("horovod", "buckets"):
            import horovod.torch  # noqa: F401
    except (ImportError, OSError, HpctrainError) as problem:
        return f"cannot be imported: {problem}"
    return ""


# The groups of all ranks, made once: whoever needs one shares it.
_opened: dict[str, Any] = {}


def torch_communicator(on_gpu: bool) -> Any:
    """Return torch.distributed's group of all ranks."""
    from hpctrain.train.comm_torch import TorchCommunicator

    if "torch" not in _opened:
        _opened["torch"] = TorchCommunicator(on_gpu=on_gpu)
    return _opened["torch"]


def horovod_communicator() -> Any:
    """Return Horovod's, as the trainer opens it where it knows nothing of the step."""
    from hpctrain.train.comm_horovod import HorovodCommunicator

    if "horovod" not in _opened:
        _opened["horovod"] = HorovodCommunicator()
    return _opened["horovod"]


def close_communicators() -> None:
    """Leave all groups; the last call."""
    while _opened:
        _opened.popitem()[1].shutdown()
