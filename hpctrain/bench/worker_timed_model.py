"""A model whose layers take a set time, for scaling studies where ranks outnumber cores.

    hpctrain run … --set model.factory=hpctrain.bench.worker_timed_model:build \\
        --set data.factory=hpctrain.bench.worker_timed_model:open_samples \\
        --set launch.env='{HPCTRAIN_TIMED_MODEL = "layers=8,layer_kb=512,backward_ms=10"}'

Parameters, gradients, optimizer and exchange are real; computing is a sleep, which needs no core.
So several ranks on few cores take turns as they would on machines of their own.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpctrain.errors import ConfigError

VARIABLE = "HPCTRAIN_TIMED_MODEL"
ROW = 1024  # elements


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedModelShape:
    """`layers` layers of `layer_kb` KiB of gradients (fp32), with the times of each (ms)."""

    layers: int = 8
    layer_kb: int = 512
    forward_ms: float = 5.0
    backward_ms: float = 10.0


def parse_timed_model(text: str) -> TimedModelShape:
    """Return the shape that ``name=value,…`` names; what is not named has its default.

    Raises:
        ConfigError: a name is unknown, or a value no number.

    >>> parse_timed_model("layers=4,backward_ms=2.5").backward_ms
    2.5
    """
    fields = {"layers": int, "layer_kb": int, "forward_ms": float, "backward_ms": float}
    given: dict[str, Any] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        name, _, value = word.partition("=")
        try:
            given[name] = fields[name](value)
        except (KeyError, ValueError) as problem:
            raise ConfigError(
                f"{VARIABLE}: not understood, got '{word}'; expected name=number with a name "
                f"of {', '.join(fields)}. Write e.g. layers=8,forward_ms=5."
            ) from problem
    return TimedModelShape(**given)


class _Timed(torch.autograd.Function):
    """Hands its input on; takes its time, forward and back."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, forward_s: float, backward_s: float
    ) -> Tensor:
        ctx.shape, ctx.backward_s = weight.shape, backward_s
        time.sleep(forward_s)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        time.sleep(ctx.backward_s)
        return gradient, torch.full(ctx.shape, 1e-3), None, None


class TimedModel(nn.Module):
    """Maps tokens (batch, seq) to the same scores, whatever its weights."""

    def __init__(self, shape: TimedModelShape, vocab_size: int) -> None:
        super().__init__()
        self._shape = shape
        rows = max(1, shape.layer_kb * 1024 // (4 * ROW))
        self.layers = nn.ParameterList(
            nn.Parameter(torch.zeros(rows, ROW)) for _ in range(shape.layers)
        )
        self.register_buffer("scores", torch.zeros(vocab_size), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, seq) int64 → (batch, seq, vocab_size)"""
        values = self.scores.expand(*tokens.shape, -1)
        forward_s, backward_s = self._shape.forward_ms / 1e3, self._shape.backward_ms / 1e3
        for weight in self.layers:
            values = _Timed.apply(values, weight, forward_s, backward_s)
        return values


def build(vocab_size: int, seq_len: int) -> nn.Module:
    """Return the model that the environment describes; for `model.factory`."""
    return TimedModel(parse_timed_model(os.environ.get(VARIABLE, "")), vocab_size)


class _Zeros:
    """Samples without content."""

    def __init__(self, vocab_size: int, seq_len: int) -> None:
        self.vocab_size, self._width = vocab_size, seq_len + 1

    def __len__(self) -> int:
        return 4096

    def read(self, samples: np.ndarray) -> np.ndarray:
        return np.zeros((len(samples), self._width), dtype=np.uint8)


def open_samples(split: str, seq_len: int) -> _Zeros:
    """Return samples of nothing; for `data.factory`."""
    return _Zeros(256, seq_len)
