"""How a model knows where in the sequence a token stands: one small class an encoding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hpctrain.train.presets import ModelSize


class PositionEncoding(nn.Module):
    """Overrides `embed` (something added to the embeddings) or `rotate` (queries and keys)."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()

    def embed(self, x: Tensor) -> Tensor:
        """Return token embeddings that know their place: (batch, seq, d_model) → the same."""
        return x

    def rotate(self, heads: Tensor) -> Tensor:
        """Return queries or keys that do: (batch, heads, seq, head_dim) → the same."""
        return heads


class Learned(PositionEncoding):
    """A trained vector for each place (GPT-2)."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__(size)
        self.weight = nn.Parameter(torch.empty(size.seq_len, size.d_model))

    def embed(self, x: Tensor) -> Tensor:
        return x + self.weight[: x.shape[1]]


class Sinusoidal(PositionEncoding):
    """Fixed waves of falling frequency (Vaswani et al. 2017, arXiv:1706.03762, sections 3.4
    and 3.5; embeddings are scaled by √d_model as there, else the waves would drown them)."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__(size)
        angles = _angles(size.seq_len, size.d_model)
        waves = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(start_dim=1)
        self.register_buffer("waves", waves, persistent=False)
        self.scale = size.d_model**0.5

    def embed(self, x: Tensor) -> Tensor:
        return x * self.scale + self.waves[: x.shape[1]]


class Rope(PositionEncoding):
    """Turns pairs of query and key values by an angle that grows with the place, so that
    attention sees distances (Su et al. 2021, arXiv:2104.09864, section 3.4.2)."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__(size)
        angles = _angles(size.seq_len, size.head_dim)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def rotate(self, heads: Tensor) -> Tensor:
        cos, sin = self.cos[: heads.shape[2]], self.sin[: heads.shape[2]]
        a, b = heads.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


POSITIONS: dict[str, type[PositionEncoding]] = {
    "learned": Learned,
    "sinusoidal": Sinusoidal,
    "rope": Rope,
}


def _angles(seq_len: int, width: int) -> Tensor:
    """Return place / 10000^(2i / width): (seq_len, width / 2)."""
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    places = torch.arange(seq_len, dtype=torch.float64)
    return torch.outer(places, frequencies).float()
