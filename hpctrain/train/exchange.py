"""How gradients become the sum over all ranks. The loop does not know which way.

A step, whichever the exchange: :meth:`Exchange.clear`; for each micro-batch, inside
:meth:`Exchange.micro_step`, forward through `model` and backward; :meth:`Exchange.finish`;
then :meth:`Exchange.update` with the optimizer over `pieces`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hpctrain.config import Config
from hpctrain.train.buckets import Bucket, Piece, cut_pieces, lay_out_model
from hpctrain.train.choices import resolve_exchange
from hpctrain.train.communicator import Communicator

# Formats that gradients travel in, by comm.compression.
WIRE_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Exchange:
    """The interface."""

    model: nn.Module
    """What the forward pass calls."""
    pieces: list[Piece]
    """What the optimizer updates on this rank."""
    loss: Tensor
    """(1,): this rank's part of the loss before :meth:`finish`, the global loss after it."""

    name = "native"
    """As `comm.exchange` names it."""
    is_sharded = False
    """Whether `pieces` are this rank's part of the model, and others have the rest."""

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients of `pieces`; after :meth:`finish` summed over the ranks."""
        return [piece.tensor.grad for piece in self.pieces if piece.tensor.grad is not None]

    def attach(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Return the optimizer to train with, once, before the first step."""
        return optimizer

    def clear(self) -> None:
        """Zero gradients and loss, before a step's first backward."""
        raise NotImplementedError

    @contextmanager
    def micro_step(self, *, last: bool) -> Iterator[None]:
        """Wrap a forward and its backward; in the step's last one gradients may leave."""
        yield

    def finish(self) -> float:
        """Return when every gradient is the sum; returns the seconds spent waiting (host)."""
        raise NotImplementedError

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the parameters, on every rank alike."""
        optimizer.step()


class BucketExchange(Exchange):
    """Owns a model's flat parameters and gradients, and sums the gradients over the ranks.

    A bucket is handed to the communicator, in place and whole, the moment its last gradient
    is there, while backward still runs. A handful of large exchanges costs less than hundreds
    of small ones, nothing is copied together, and the optimizer runs over a few large tensors.

    Sharded (Rajbhandari et al. 2020, arXiv:1910.02054, stage 1), each rank owns the same part of
    every bucket: it gets the sums of that part alone, updates it, and passes it on to all.
    """

    name = "buckets"

    def __init__(
        self, model: nn.Module, comm: Communicator, bucket_mb: float, compression: str = "none",
        *, sharded: bool = False,
    ) -> None:  # fmt: skip
        self.model = model
        self._comm = comm
        self._wire_dtype = WIRE_DTYPES.get(compression)
        self.is_sharded = sharded and comm.size > 1
        self._sending = False
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        names, parameters = zip(*named, strict=True)
        self.buckets = lay_out_model(model, bucket_mb, comm.size if self.is_sharded else 1)
        numels = [p.numel() for p in parameters]
        self.pieces = [
            piece
            for bucket in self.buckets
            for piece in cut_pieces(bucket, names, numels, *self._own_part(bucket))
        ]
        last = self.buckets[-1]
        # It rides in the last bucket, for an exchange of its own would cost a round trip;
        # but not where that loses digits, nor where only one rank would get it.
        self._loss_rides = not self._wire_dtype and not self.is_sharded
        self.loss = last.exchanged[last.layout.numel :]
        if not self._loss_rides:
            self.loss = torch.zeros_like(self.loss)
        for bucket in self.buckets:
            for slot in bucket.layout.slots:
                self._watch(parameters[slot.parameter], bucket)
            comm.broadcast(bucket.parameters, f"parameters.{bucket.name}")

    def clear(self) -> None:
        for bucket in self.buckets:
            bucket.exchanged.zero_()
        self.loss.zero_()

    @contextmanager
    def micro_step(self, *, last: bool) -> Iterator[None]:
        if last:
            for bucket in self.buckets:
                bucket.missing, bucket.launched = len(bucket.layout.slots), False
        self._sending = last
        yield
        self._sending = False

    def finish(self) -> float:
        start_s = time.perf_counter()
        for bucket in self.buckets:
            if not bucket.launched:  # a parameter took no part in this step
                self._send(bucket)
        for bucket in self.buckets:
            if bucket.handle is not None:
                self._take_in(bucket, self._comm.wait(bucket.handle))
                bucket.handle = None
        if not self._loss_rides:
            self._comm.all_reduce_sum(self.loss, "loss")
        return time.perf_counter() - start_s

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()
        if not self.is_sharded:
            return
        handles = [
            self._comm.all_gather_async(bucket.parameters[slice(*self._own_part(bucket))],
                                        f"parameters.{bucket.name}")
            for bucket in self.buckets
        ]  # fmt: skip
        for bucket, handle in zip(self.buckets, handles, strict=True):
            bucket.parameters.copy_(self._comm.wait(handle))

    def _own_part(self, bucket: Bucket) -> tuple[int, int]:
        """Return the first element that this rank updates, and the first after them."""
        if not self.is_sharded:
            return 0, bucket.layout.numel
        numel = bucket.layout.numel // self._comm.size
        return self._comm.rank * numel, (self._comm.rank + 1) * numel

    def _watch(self, parameter: nn.Parameter, bucket: Bucket) -> None:
        def arrived(_: Tensor) -> None:
            if self._sending:
                bucket.missing -= 1
                if bucket.missing == 0:
                    self._send(bucket)

        parameter.register_post_accumulate_grad_hook(arrived)

    def _send(self, bucket: Bucket) -> None:
        bucket.launched = True
        if self._comm.size > 1:
            sent = bucket.exchanged if self._loss_rides else bucket.gradients
            if self._wire_dtype:
                sent = sent.to(self._wire_dtype)
            start = self._comm.all_reduce_sum_async
            if self.is_sharded:
                start = self._comm.reduce_scatter_sum_async
            bucket.handle = start(sent, f"gradients.{bucket.name}")

    def _take_in(self, bucket: Bucket, total: Tensor) -> None:
        """Put an exchange's result where it is not yet: an all-reduce works in place."""
        if self.is_sharded:
            bucket.gradients[slice(*self._own_part(bucket))].copy_(total)
        elif self._wire_dtype:
            bucket.gradients.copy_(total)


def open_exchange(
    model: nn.Module, comm: Communicator, config: Config, micro_steps: int
) -> Exchange:
    """Return the exchange that `comm.exchange` names, every rank's parameters being rank 0's.

    Args:
        micro_steps: backward passes a step on this rank.
    """
    if resolve_exchange(config.comm, config.optim) == "native":
        from hpctrain.train.exchange_native import DdpExchange, HorovodExchange

        if comm.backend == "ddp":
            return DdpExchange(model, comm, config)
        return HorovodExchange(model, comm, config, micro_steps)
    return BucketExchange(
        model, comm, config.comm.bucket_mb, config.comm.compression, sharded=config.optim.sharded
    )
