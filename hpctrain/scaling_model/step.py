"""What one rank does in a step, as far as its time is concerned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MIB = 1024 * 1024
GRADIENT_BYTES = 4  # a parameter's: gradients are fp32 always
WIRE_FACTORS = {"none": 1.0, "fp16": 0.5, "bf16": 0.5}
"""Bytes on the way a byte of gradient, by `comm.compression`."""
HOROVOD_CYCLE_S = 1e-3
"""Horovod's default, and the trainer's on GPUs."""


@dataclass(frozen=True, slots=True)
class BucketModel:
    """A bucket of gradients on its way.

    Args:
        bytes_: as they travel: half as many with fp16 compression.
        ready_fraction: of the last micro-batch's backward that has passed when it is full.
    """

    bytes_: float
    ready_fraction: float


@dataclass(frozen=True, slots=True)
class StepModel:
    """A step of one rank that is alone.

    Args:
        forward_s, backward_s: of one micro-batch.
        buckets: in the order in which backward fills them.
        jitter_cv: standard deviation of a rank's forward and backward, relative to their mean.
        accum: micro-batches a step; only the last one's backward has an exchange beside it.
        slowdown: by how much computing takes longer as soon as there is an exchange, relative.
        cycle_s, negotiates: how Horovod looks for work (:mod:`hpctrain.scaling_model.overlap`).
        error: relative uncertainty of forward and backward; the error band comes from it.
        source: where the numbers come from, for people.
    """

    data_s: float
    forward_s: float
    backward_s: float
    optimizer_s: float
    buckets: tuple[BucketModel, ...]
    jitter_cv: float = 0.0
    accum: int = 1
    slowdown: float = 0.0
    cycle_s: float = 0.0
    negotiates: bool = False
    error: float = 0.0
    source: str = ""

    @property
    def computing_s(self) -> float:
        """Forward and backward of the whole step."""
        return self.accum * (self.forward_s + self.backward_s)

    @property
    def alone_s(self) -> float:
        """The step of a rank that has nobody to exchange with."""
        return self.data_s + self.computing_s + self.optimizer_s

    @property
    def exchanged_bytes(self) -> float:
        return sum(bucket.bytes_ for bucket in self.buckets)


def plan_bucket_models(
    param_bytes: float | Sequence[float],
    bucket_bytes: float,
    *,
    backward_shares: Sequence[float] | None = None,
    wire_factor: float = 1.0,
) -> tuple[BucketModel, ...]:
    """Return the buckets as :func:`hpctrain.train.buckets.plan_buckets` lays them out.

    From the last layer on, a bucket is closed before it grows over `bucket_bytes`; a larger
    parameter has one of its own.

    Args:
        param_bytes: of each parameter's gradient in the order of the forward pass, or of all
            together, which are then cut evenly.
        backward_shares: each parameter's part of backward; by default as its part of the bytes.
        wire_factor: bytes on the way a byte of gradient, 0.5 for fp16.

    >>> plan_bucket_models([4.0, 4.0, 8.0], 8.0)
    (BucketModel(bytes_=8.0, ready_fraction=0.5), BucketModel(bytes_=8.0, ready_fraction=1.0))
    >>> [bucket.bytes_ for bucket in plan_bucket_models(100.0, 40.0, wire_factor=0.5)]
    [16.666666666666668, 16.666666666666668, 16.666666666666668]
    """
    if not isinstance(param_bytes, Sequence):
        count = max(1, math.ceil(param_bytes / bucket_bytes))
        param_bytes = [param_bytes / count] * count
        bucket_bytes = 0.0
    shares = backward_shares if backward_shares is not None else param_bytes
    whole = sum(shares) or 1.0
    buckets: list[list[float]] = []  # bytes, part of backward until it is full
    passed = 0.0
    for bytes_, part in zip(reversed(param_bytes), reversed(shares), strict=True):
        if not buckets or buckets[-1][0] + bytes_ > bucket_bytes:
            buckets.append([0.0, 0.0])
        passed += part / whole
        buckets[-1] = [buckets[-1][0] + bytes_, min(1.0, passed)]
    return tuple(BucketModel(bytes_ * wire_factor, ready) for bytes_, ready in buckets)
