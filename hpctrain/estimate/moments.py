"""What lives on a rank's GPU, besides weights, gradients and moments, as a step goes on.

The order of events follows hpctrain/train: loop.py, model.py and exchange.py, and torch's autograd
(2.13): tests hold the sums against the true peak of small trainings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpctrain.estimate.load import FP32, RankLoad
from hpctrain.train.presets import ModelSize, count_parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """Bytes at one moment.

    Args:
        activations: that backward still needs.
        copies: 16-bit copies of weights, by autocast.
        logits: scores of the vocabulary, and their gradients.
        temporary: gradients on their way through a layer.
        exchange: what waits for other ranks, or came from them.
    """

    activations: float = 0.0
    copies: float = 0.0
    logits: float = 0.0
    temporary: float = 0.0
    exchange: float = 0.0

    @property
    def total(self) -> float:
        return self.activations + self.copies + self.logits + self.temporary + self.exchange


def live_moments(size: ModelSize, load: RankLoad) -> Mapping[str, Live]:
    """Return the moments of a step that can be the fullest."""
    wire, gathered = _exchange_bytes(size, load)
    table = FP32 * size.vocab_size * size.d_model
    return {
        **_around_the_scores(size, load),
        "last block's backward pass": _in_last_block(size, load),
        # Output layer's part, embedding's part, and their sum.
        "embedding's gradient": Live(temporary=3 * table, exchange=wire),
        "optimizer step": Live(exchange=max(wire, gathered)),
    }


def block_activation_bytes(size: ModelSize, load: RankLoad) -> float:
    """Return what backward needs of one block, its input included.

    Of a token: two fp32 values of the residual stream (what the norms read) and in the precision's
    format 14 vectors of width d: two norms' outputs, queries, keys and values, attention's output,
    and four each around GELU; turned queries and keys more with rope; a number a head of attention
    and four of the norms. (Compare Korthikanti et al. 2022, arXiv:2205.05198, equation 2: 34·s·b·h
    with dropout masks, plus the score matrix that fused attention does not keep.)
    """
    vectors = 14 + (2 if size.position == "rope" else 0)
    of_width = 2 * FP32 + vectors * load.value_bytes
    return load.tokens(size) * (of_width * size.d_model + FP32 * (size.num_heads + 4))


def _kept(size: ModelSize, load: RankLoad) -> float:
    """Return what all blocks keep for backward."""
    stream = FP32 * load.tokens(size) * size.d_model
    return size.num_layers * (stream if load.recomputes else block_activation_bytes(size, load))


def _block_copies(size: ModelSize, load: RankLoad) -> float:
    return 12 * size.d_model**2 * load.copy_bytes


def _kept_copies(size: ModelSize, load: RankLoad) -> float:
    """Return the weights' copies that backward needs; blocks that are recomputed make new ones."""
    of_blocks = 0 if load.recomputes else size.num_layers * _block_copies(size, load)
    return load.copy_bytes * size.vocab_size * size.d_model + of_blocks


def _around_the_scores(size: ModelSize, load: RankLoad) -> dict[str, Live]:
    tokens, d, value = load.tokens(size), size.d_model, load.value_bytes
    table, scores = size.vocab_size * d, tokens * size.vocab_size
    # Kept of the last norm: what it read, what it gave, and two numbers a token.
    activations = _kept(size, load) + tokens * (FP32 * d + value * d + 2 * FP32)
    all_copies = load.copy_bytes * table + size.num_layers * _block_copies(size, load)
    copies = _kept_copies(size, load)
    # Scores, the same in fp32 if they are not, and their log-softmax in fp32.
    cast = FP32 if value != FP32 else 0
    # The output's weight gradient comes in the precision and goes on in fp32.
    gradient = FP32 * table + (value * table if cast else 0) + value * tokens * d
    return {
        "end of the forward pass": Live(
            activations=activations, copies=all_copies, logits=(value + cast + FP32) * scores
        ),
        # The log-softmax, its gradient, and the gradient before it.
        "start of the backward pass": Live(
            activations=activations, copies=copies, logits=3 * FP32 * scores
        ),
        "output layer's gradient": Live(
            activations=activations, copies=copies, logits=value * scores, temporary=gradient
        ),
    }


def _in_last_block(size: ModelSize, load: RankLoad) -> Live:
    """At the feed-forward's second matrix, while GELU's output is still there."""
    tokens, d, value = load.tokens(size), size.d_model, load.value_bytes
    stream, matrix = FP32 * tokens * d, 4 * d * d
    # The embedding's gradient, of which the output layer gave its part, waits for the other.
    waiting = FP32 * size.vocab_size * d
    temporary = waiting + stream + 4 * value * tokens * d + FP32 * matrix
    if load.copy_bytes:
        temporary += value * (tokens * d + matrix)
    again = block_activation_bytes(size, load) - stream if load.recomputes else 0.0
    return Live(
        activations=_kept(size, load) + again,
        copies=_kept_copies(size, load) + (_block_copies(size, load) if load.recomputes else 0),
        temporary=temporary,
    )


def _exchange_bytes(size: ModelSize, load: RankLoad) -> tuple[float, float]:
    """Return what waits for the exchange at most after backward, and during the update.

    With compression that is a 16-bit copy of every gradient. Sharded, the own part of the sums;
    and in the update all weights, gathered.
    """
    if load.ranks == 1:
        return 0.0, 0.0
    params = count_parameters(size)
    wire = 0.0 if load.compression == "none" else 2.0 * params
    if not load.sharded:
        return wire, 0.0
    return wire + (wire or FP32 * params) / load.ranks, FP32 * params
