"""A model's parameters and gradients as a few flat tensors, and where in them each one lies.

Gradients come in the reverse order of the layers, so buckets are filled in that order. (The
idea of buckets: Li et al. 2020, "PyTorch Distributed", section 3.2.3.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

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


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a parameter's elements in a flat tensor: (flat) `start` … and in the parameter
    `first` …, `numel` of them."""

    name: str
    first: int
    start: int
    numel: int


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A tensor that the optimizer updates as one, with its gradient in `.grad`."""

    tensor: nn.Parameter
    decays: bool
    """Whether weight decay applies to it."""
    runs: tuple[Run, ...]
    """The model's parameters in it, by name."""


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
    numels: Sequence[int], decays: Sequence[bool], bucket_elements: int, parts: int = 1
) -> list[BucketLayout]:
    """Return the buckets, in the order in which backward fills them.

    Args:
        numels: elements of each parameter, in the order of the forward pass.
        decays: whether weight decay applies to it.
        bucket_elements: a bucket is closed before it grows over this; a larger parameter has
            a bucket of its own.
        parts: how many equal parts each bucket must be divisible into.
    """
    groups: list[list[int]] = [[]]
    filled = 0
    for parameter in reversed(range(len(numels))):
        if groups[-1] and filled + numels[parameter] > bucket_elements:
            groups.append([])
            filled = 0
        groups[-1].append(parameter)
        filled += numels[parameter]
    return [_lay_out(group, numels, decays, parts) for group in groups if group]


def lay_out_model(model: nn.Module, bucket_mb: float, parts: int = 1) -> list[Bucket]:
    """Move a model's parameters and gradients into flat tensors; return those.

    Args:
        bucket_mb: size of a bucket (MiB).
        parts: how many equal parts each bucket must be divisible into.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    layouts = plan_buckets(
        [p.numel() for p in parameters],
        [p.dim() >= 2 for p in parameters],
        int(bucket_mb * MIB) // parameters[0].element_size(),
        parts,
    )
    return [
        _fill_bucket(str(number), layout, parameters, extra=number == len(layouts) - 1)
        for number, layout in enumerate(layouts)
    ]


def cut_pieces(
    bucket: Bucket, names: Sequence[str], numels: Sequence[int], start: int, end: int
) -> Iterator[Piece]:
    """Yield elements [start, end) of a bucket, what decays apart from what does not."""
    middle = min(max(bucket.layout.decayed, start), end)
    for decays, low, high in ((True, start, middle), (False, middle, end)):
        runs = []
        for slot in bucket.layout.slots:
            first = max(slot.offset, low)
            numel = min(slot.offset + numels[slot.parameter], high) - first
            if numel > 0:
                name = names[slot.parameter]
                runs.append(Run(name, first - slot.offset, first - low, numel))
        if runs:
            tensor = nn.Parameter(bucket.parameters[low:high])
            tensor.grad = bucket.gradients[low:high]
            yield Piece(tensor, decays, tuple(runs))


def _lay_out(
    group: Sequence[int], numels: Sequence[int], decays: Sequence[bool], parts: int
) -> BucketLayout:
    slots, offset, decayed = [], 0, 0
    for decay in (True, False):
        for parameter in group:
            if decays[parameter] == decay:
                slots.append(Slot(parameter, offset))
                offset += -(-numels[parameter] // ALIGNMENT) * ALIGNMENT
        if decay:
            decayed = offset
    unit = parts * ALIGNMENT
    return BucketLayout(tuple(slots), decayed, -(-offset // unit) * unit)


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
