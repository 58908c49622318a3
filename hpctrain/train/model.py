"""A decoder-only transformer: pre-norm, GELU, no biases, output tied to the embedding.

Shapes: batch, seq (tokens), d_model (width), heads × head_dim = d_model, vocab.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hpctrain.train.positions import POSITIONS, PositionEncoding
from hpctrain.train.presets import ModelSize

INIT_STD = 0.02  # GPT-2


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.num_heads = size.num_heads
        self.qkv = nn.Linear(size.d_model, 3 * size.d_model, bias=False)
        self.out = nn.Linear(size.d_model, size.d_model, bias=False)

    def forward(self, x: Tensor, position: PositionEncoding) -> Tensor:
        """(batch, seq, d_model) → (batch, seq, d_model)"""
        batch, seq, d_model = x.shape
        qkv = self.qkv(x).view(batch, seq, 3, self.num_heads, d_model // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, seq, head_dim)
        query, key = position.rotate(query), position.rotate(key)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, seq, d_model))


class FeedForward(nn.Module):
    """Two matrices with a GELU between them."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.up = nn.Linear(size.d_model, 4 * size.d_model, bias=False)
        self.out = nn.Linear(4 * size.d_model, size.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, seq, d_model) → (batch, seq, d_model)"""
        return self.out(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(size.d_model, bias=False)
        self.attention = Attention(size)
        self.norm_feed_forward = nn.LayerNorm(size.d_model, bias=False)
        self.feed_forward = FeedForward(size)

    def forward(self, x: Tensor, position: PositionEncoding) -> Tensor:
        """(batch, seq, d_model) → (batch, seq, d_model)"""
        x = x + self.attention(self.norm_attention(x), position)
        return x + self.feed_forward(self.norm_feed_forward(x))


class Transformer(nn.Module):
    """Tokens in, next-token scores out."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.size = size
        self.recomputes_blocks = False
        """Whether backward computes each block again, in place of keeping its activations."""
        # In the order of the forward pass: the exchange fills its buckets from the end.
        self.embedding = nn.Embedding(size.vocab_size, size.d_model)
        self.position = POSITIONS[size.position](size)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.num_layers))
        self.norm = nn.LayerNorm(size.d_model, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, seq) int64 → scores (batch, seq, vocab)"""
        x = self.position.embed(self.embedding(tokens))
        for block in self.blocks:
            if self.recomputes_blocks and self.training:
                # No dropout here, so there is no random state to keep.
                x = checkpoint(
                    block, x, self.position, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x = block(x, self.position)
        return F.linear(self.norm(x), self.embedding.weight)


def build_model(size: ModelSize, seed: int) -> Transformer:
    """Return a new model on the CPU; its weights depend on `size` and `seed` alone.

    Matrices are drawn from N(0, 0.02²), those that write into the residual stream with
    0.02 / √(2·num_layers): GPT-2 (Radford et al. 2019, section 2.3).
    """
    model = Transformer(size)
    generator = torch.Generator().manual_seed(seed)
    residual_std = INIT_STD / (2 * size.num_layers) ** 0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                std = residual_std if name.endswith("out.weight") else INIT_STD
                parameter.normal_(0.0, std, generator=generator)
    return model


def compile_model(model: nn.Module) -> None:
    """Have the model compiled at its first step, block by block.

    Equal blocks share their code, and gradients still leave while backward runs: one compiled
    whole would give them all at its end.
    """
    parts = model.blocks if isinstance(model, Transformer) else [model]
    for part in parts:
        part.compile()


def sum_token_losses(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the summed cross-entropy (nats): (batch, seq, vocab), (batch, seq) → ()"""
    # In fp32 whatever the scores' format: thousands of terms are summed.
    return F.cross_entropy(scores.flatten(0, 1).float(), targets.flatten(), reduction="sum")
