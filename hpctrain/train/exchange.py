"""Gradients as a few flat buckets, summed over the ranks while backward still runs.

Parameters and their gradients are views into flat tensors. A bucket is handed to the
communicator, in place and whole, the moment its last gradient is there; since gradients come
in the reverse order of the layers, so do the buckets. A handful of large exchanges costs less
than hundreds of small ones, nothing is copied together, and the optimizer runs over a few
large tensors. (The idea of buckets: Li et al. 2020, "PyTorch Distributed", section 3.2.3.)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hpctrain.train.communicator import Communicator

ALIGNMENT = 16  # elements: each parameter starts on a cache line (64 bytes in fp32)
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Slot:
    """Where in its bucket a parameter lies."""

    parameter: int
    offset: int


@dataclass(frozen=True, slots=True)
class BucketLayout:
    """A bucket's parameters: first those with weight decay, then those without."""

    slots: tuple[Slot, ...]
    decayed: int
    """Elements of the part with weight decay."""
    numel: int


@dataclass(slots=True, eq=False)
class Bucket:
    """The flat tensors of a bucket, (numel,) each."""

    name: str
    layout: BucketLayout
    parameters: Tensor
    gradients: Tensor
    exchanged: Tensor
    """`gradients`, in the last bucket with the loss behind them."""
    missing: int = 0
    """Gradients that this step has not produced yet."""
    handle: Any = None
    launched: bool = False


def plan_buckets(
    numels: Sequence[int], decays: Sequence[bool], bucket_elements: int
) -> list[BucketLayout]:
    """Return the buckets, in the order in which backward fills them.

    Args:
        numels: elements of each parameter, in the order of the forward pass.
        decays: whether weight decay applies to it.
        bucket_elements: a bucket is closed before it grows over this; a larger parameter has
            a bucket of its own.
    """
    groups: list[list[int]] = [[]]
    filled = 0
    for parameter in reversed(range(len(numels))):
        if groups[-1] and filled + numels[parameter] > bucket_elements:
            groups.append([])
            filled = 0
        groups[-1].append(parameter)
        filled += numels[parameter]
    return [_lay_out(group, numels, decays) for group in groups if group]


class GradientExchange:
    """Owns a model's flat parameters and gradients, and sums the gradients over the ranks.

    A step: :meth:`clear`, backward passes, the last of them after :meth:`send_during_backward`,
    then :meth:`finish`.
    """

    def __init__(self, model: nn.Module, comm: Communicator, bucket_mb: float) -> None:
        self._comm = comm
        self._sending = False
        parameters = [p for p in model.parameters() if p.requires_grad]
        layouts = plan_buckets(
            [p.numel() for p in parameters],
            [p.dim() >= 2 for p in parameters],
            int(bucket_mb * MIB) // parameters[0].element_size(),
        )
        self.buckets = [
            _fill_bucket(str(number), layout, parameters, extra=number == len(layouts) - 1)
            for number, layout in enumerate(layouts)
        ]
        last = self.buckets[-1]
        self.loss = last.exchanged[last.layout.numel :]
        """(1,): this rank's part of the loss before the exchange, the global loss after it.
        It rides in the last bucket, for an exchange of its own would cost a round trip."""
        for bucket in self.buckets:
            self._watch(bucket, parameters)
            comm.broadcast(bucket.parameters, f"parameters.{bucket.name}")

    def clear(self) -> None:
        """Zero gradients and loss, before a step's first backward."""
        for bucket in self.buckets:
            bucket.exchanged.zero_()

    def send_during_backward(self) -> None:
        """Let the next backward, the step's last, send each bucket as soon as it is full."""
        for bucket in self.buckets:
            bucket.missing, bucket.launched = len(bucket.layout.slots), False
        self._sending = True

    def finish(self) -> float:
        """Return when every bucket holds the sum; returns the seconds spent waiting (host)."""
        start_s = time.perf_counter()
        self._sending = False
        for bucket in self.buckets:
            if not bucket.launched:  # a parameter took no part in this step
                self._send(bucket)
        for bucket in self.buckets:
            if bucket.handle is not None:
                self._comm.wait(bucket.handle)
                bucket.handle = None
        return time.perf_counter() - start_s

    def _watch(self, bucket: Bucket, parameters: Sequence[nn.Parameter]) -> None:
        def arrived(_: Tensor) -> None:
            if self._sending:
                bucket.missing -= 1
                if bucket.missing == 0:
                    self._send(bucket)

        for slot in bucket.layout.slots:
            parameters[slot.parameter].register_post_accumulate_grad_hook(arrived)

    def _send(self, bucket: Bucket) -> None:
        bucket.launched = True
        if self._comm.size > 1:
            bucket.handle = self._comm.all_reduce_sum_async(
                bucket.exchanged, f"gradients.{bucket.name}"
            )


def _lay_out(group: Sequence[int], numels: Sequence[int], decays: Sequence[bool]) -> BucketLayout:
    slots, offset, decayed = [], 0, 0
    for decay in (True, False):
        for parameter in group:
            if decays[parameter] == decay:
                slots.append(Slot(parameter, offset))
                offset += -(-numels[parameter] // ALIGNMENT) * ALIGNMENT
        if decay:
            decayed = offset
    return BucketLayout(tuple(slots), decayed, offset)


def _fill_bucket(
    name: str, layout: BucketLayout, parameters: Sequence[nn.Parameter], extra: int
) -> Bucket:
    """Move the parameters into a flat tensor and give them gradients in another."""
    like = parameters[layout.slots[0].parameter]
    flat = torch.zeros(layout.numel, dtype=like.dtype, device=like.device)
    exchanged = torch.zeros(layout.numel + extra, dtype=like.dtype, device=like.device)
    gradients = exchanged[: layout.numel]
    for slot in layout.slots:
        parameter = parameters[slot.parameter]
        place = slice(slot.offset, slot.offset + parameter.numel())
        flat[place].copy_(parameter.detach().flatten())
        parameter.data = flat[place].view_as(parameter)
        parameter.grad = gradients[place].view_as(parameter)
    return Bucket(name, layout, flat, gradients, exchanged)
