"""The communicator over torch.distributed: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import gc
import os
import socket
from typing import Any

import torch
import torch.distributed as dist

# Before there is a group: it has `group=group.WORLD` for default arguments, and torch.optim imports
# it later on. The group would then be held for ever, and with it gloo's threads (see shutdown).
import torch.distributed.nn
from torch import Tensor

from hpctrain.errors import LaunchError
from hpctrain.launch.rank_env import RankIdentity, find_rank
from hpctrain.train.communicator import Communicator
from hpctrain.train.rendezvous import find_meeting_point

# Newer torch has renamed them, and warns of the old names.
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class TorchCommunicator(Communicator):
    """What the interface asks for, in torch.distributed's words.

    It pairs up exchanges by their order instead of their names: all ranks start them in the
    same order, for all fill their buckets alike.
    """

    backend = "ddp"
    _nothing = torch.zeros(1)

    def __init__(self, *, on_gpu: bool) -> None:
        identity = _find_rank_or_be_the_only_one()
        self.rank, self.size, self.local_rank, self.local_size = identity
        address, port = find_meeting_point(os.environ, identity)
        if self.local_size == self.size:
            # Ranks of one machine need no network, and its name may not resolve.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
        if on_gpu:
            torch.cuda.set_device(self.local_rank % torch.cuda.device_count())
        try:
            store = dist.TCPStore(address, port, self.size, is_master=self.rank == 0)
            # On GPUs both: the few numbers that live on the host go through gloo.
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
                store=store, rank=self.rank, world_size=self.size,
            )  # fmt: skip
        except RuntimeError as problem:
            raise LaunchError(
                f"rank {self.rank}: torch.distributed cannot meet the other ranks, got MASTER_ADDR "
                f"{address}, MASTER_PORT {port}: {problem}; expected a free port of rank 0's host "
                "that every host can reach. Run it again, or name another port: --set "
                "'launch.env.MASTER_PORT=\"29501\"'"
            ) from problem

    def all_reduce_sum_async(self, tensor: Tensor, name: str) -> Any:
        with self.explained():
            return dist.all_reduce(tensor, async_op=True), tensor

    def reduce_scatter_sum_async(self, tensor: Tensor, name: str) -> Any:
        part = tensor.new_empty(tensor.numel() // self.size)
        with self.explained():
            return _reduce_scatter(part, tensor, async_op=True), part

    def all_gather_async(self, tensor: Tensor, name: str) -> Any:
        whole = tensor.new_empty(tensor.numel() * self.size)
        with self.explained():
            return _all_gather(whole, tensor, async_op=True), whole

    def wait(self, handle: Any) -> Tensor:
        work, result = handle
        with self.explained():
            work.wait()
        return result

    def broadcast(self, tensor: Tensor, name: str, root: int = 0) -> Tensor:
        with self.explained():
            dist.broadcast(tensor, root)
        return tensor

    def barrier(self) -> None:
        # A sum of our own: dist.barrier() would pick a device by itself.
        self.all_reduce_sum(self._nothing, "barrier")

    def shutdown(self) -> None:
        # gloo's threads end, and are waited for, with the last reference to the group. One that is
        # left and lets go of an exchange's tensor while Python ends asks for the interpreter's
        # lock; that ends the thread, in a destructor, and so C++ aborts the process
        # (pytorch/pytorch#190489). DistributedDataParallel has a reference and is part of a cycle.
        gc.collect()
        dist.destroy_process_group()

    def _is_broken_exchange(self, problem: RuntimeError) -> bool:
        # gloo's errors have no class of their own, only the file they come from.
        return isinstance(problem, dist.DistError) or "gloo" in str(problem)


def _find_rank_or_be_the_only_one() -> RankIdentity:
    try:
        return find_rank(os.environ)
    except LaunchError:
        if os.environ.get("HPCTRAIN_SIZE", "1") != "1":
            raise
        return RankIdentity(rank=0, size=1, local_rank=0, local_size=1)


def _loopback() -> str:
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in names if name in ("lo", "lo0")), names[0])
