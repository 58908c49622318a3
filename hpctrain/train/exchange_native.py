"""The exchanges that the libraries bring: DistributedDataParallel, hvd.DistributedOptimizer.

The first is what the ddp backend is usually run with; the second is the reference that our
own buckets are held against. Both keep each parameter and its gradient a tensor of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature

import torch
import torch.distributed as dist
from torch import nn

from hpctrain.config import Config
from hpctrain.train.buckets import Piece, Run
from hpctrain.train.communicator import Communicator
from hpctrain.train.exchange import WIRE_DTYPES, Exchange

# Newer torch has renamed it, and warns of the old name.
_SYNC_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in signature(nn.parallel.DistributedDataParallel).parameters
    else "broadcast_buffers"
)


class _ByParameter(Exchange):
    """What the two have in common: a piece a parameter, and a loss that travels by itself."""

    def __init__(self, model: nn.Module, comm: Communicator) -> None:
        self.model: nn.Module = model
        self._comm = comm
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.pieces = [Piece(p, p.dim() >= 2, (Run(name, 0, 0, p.numel()),)) for name, p in named]
        self.loss = torch.zeros(1, device=named[0][1].device)

    def clear(self) -> None:
        for gradient in self.gradients:
            gradient.zero_()
        self.loss.zero_()

    def finish(self) -> float:
        start_s = time.perf_counter()
        self._finish_gradients()
        self._comm.all_reduce_sum(self.loss, "loss")
        return time.perf_counter() - start_s

    def _finish_gradients(self) -> None:
        """Wait for the gradients."""


class DdpExchange(_ByParameter):
    """DistributedDataParallel, its gradients views into its buckets."""

    def __init__(self, model: nn.Module, comm: Communicator, config: Config) -> None:
        super().__init__(model, comm)
        with comm.explained():
            self.model = self._ddp = nn.parallel.DistributedDataParallel(
                model,
                bucket_cap_mb=config.comm.bucket_mb,
                gradient_as_bucket_view=True,
                **{_SYNC_BUFFERS: False},  # our buffers are constants
                # With no_sync(), which accumulation needs, torch's static graph ends in an
                # internal assertion (torch 2.13). Not by the rank's own micro-steps: all
                # ranks must choose alike.
                static_graph=config.train.grad_accum_steps == 1,
            )
        wire_dtype = WIRE_DTYPES.get(config.comm.compression)
        self._ddp.register_comm_hook(wire_dtype, _sum_bucket)

    @contextmanager
    def micro_step(self, *, last: bool) -> Iterator[None]:
        with self._comm.explained():
            if last:
                yield
            else:
                with self._ddp.no_sync():
                    yield


# DDP takes either these very types or none, and the types' names are what it would get here.
def _sum_bucket(wire_dtype, bucket):
    """Sum over the ranks, where DDP by itself averages: ranks' shares may be unequal.

    Args:
        wire_dtype: format to exchange in, None for the gradients' own.
        bucket: a dist.GradBucket.

    Returns:
        A future of the summed buffer, (numel,).
    """
    buffer = bucket.buffer()
    sent = buffer if wire_dtype is None else buffer.to(wire_dtype)
    future = dist.all_reduce(sent, async_op=True).get_future()
    if wire_dtype is None:
        return future.then(lambda done: done.value()[0])
    return future.then(lambda done: buffer.copy_(done.value()[0]))


class HorovodExchange(_ByParameter):
    """hvd.DistributedOptimizer: one all-reduce a parameter, fused by Horovod."""

    def __init__(
        self, model: nn.Module, comm: Communicator, config: Config, micro_steps: int
    ) -> None:
        super().__init__(model, comm)
        self._compression = config.comm.compression
        self._micro_steps = micro_steps
        for piece in self.pieces:
            comm.broadcast(piece.tensor.data, f"parameters.{piece.runs[0].name}")

    def attach(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        import horovod.torch as hvd

        self._optimizer = hvd.DistributedOptimizer(
            optimizer,
            named_parameters=[(piece.runs[0].name, piece.tensor) for piece in self.pieces],
            backward_passes_per_step=self._micro_steps,
            op=hvd.Sum,
            compression=getattr(hvd.Compression, self._compression),
        )
        return self._optimizer

    @contextmanager
    def micro_step(self, *, last: bool) -> Iterator[None]:
        with self._comm.explained():
            yield

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        with self._optimizer.skip_synchronize():
            optimizer.step()

    def _finish_gradients(self) -> None:
        with self._comm.explained():
            self._optimizer.synchronize()
