"""How much memory does a rank's GPU need at its fullest moment?

The sum over what lives at once, at each moment that can be the fullest, for a step as
hpctrain/train runs it: fp32 weights, gradients and moments always, matrix products in the
precision, flat gradient buckets. Attention is assumed fused (flash or memory-efficient, which
torch takes for causal attention without a mask tensor, on GPUs and CPUs alike): it keeps one number
a head and token, never the (seq, seq) matrix. Not in it: what lies outside torch's allocator (see
RESERVE_BYTES), the savings and copies of torch.compile, and another exchange than our own buckets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hpctrain.train.presets import ModelSize, count_parameters

FP32 = 4
ADAM_MOMENTS = 2
GIB = 2**30
# CUDA's context and kernels, NCCL's buffers, and the gaps between torch's blocks. Loading the
# kernels alone takes 0.5 to 2 GB by GPU (Bekman, Machine Learning Engineering, "Anatomy of model's
# memory usage"): the upper end.
RESERVE_BYTES = 2 * 10**9
_SIXTEEN_BIT = ("bf16", "fp16", "apex-O1", "apex-O2")


@dataclass(frozen=True, kw_only=True, slots=True)
class RankLoad:
    """What one rank computes with.

    Args:
        micro_batch: sequences in one forward pass.
        sequences: of a step on this rank.
        ranks: of the whole run.
        recomputes: activation checkpointing, block by block.
        sharded: moments spread over the ranks (ZeRO stage 1).
        compression: number format of gradients on their way, as `comm.compression`.
    """

    micro_batch: int
    sequences: int
    precision: str
    ranks: int = 1
    recomputes: bool = False
    sharded: bool = False
    compression: str = "none"

    @property
    def value_bytes(self) -> int:
        """Of a number that matrix products take and give."""
        return 2 if self.precision in _SIXTEEN_BIT else FP32


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPart:
    """One line of the sum, and how it comes about."""

    name: str
    size_bytes: float
    formula: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """The fullest moment of a step."""

    parts: tuple[MemoryPart, ...]
    moment: str

    @property
    def peak_bytes(self) -> float:
        """Of tensors, as torch.cuda.max_memory_allocated counts them."""
        return sum(part.size_bytes for part in self.parts)

    @property
    def needed_bytes(self) -> float:
        """With what lies outside torch's allocator."""
        return self.peak_bytes + RESERVE_BYTES


def estimate_memory(size: ModelSize, load: RankLoad) -> MemoryEstimate:
    """Return the memory of one rank at its fullest moment.

    The published rule of 16 bytes a parameter (fp32 weights and gradients, two moments;
    Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1, there with 16-bit copies) is what is
    left where nothing is computed:

    >>> tiny = ModelSize(d_model=128, num_layers=4, num_heads=4, vocab_size=256, seq_len=128,
    ...                  position="rope")
    >>> parts = estimate_memory(tiny, RankLoad(micro_batch=1, sequences=1, precision="fp32")).parts
    >>> sum(part.size_bytes for part in parts[:3]) / count_parameters(tiny)
    16.0
    """
    fixed = tuple(part for part in _fixed_parts(size, load) if part.size_bytes)
    moment, parts = max(_moments(size, load), key=lambda each: sum(p.size_bytes for p in each[1]))
    return MemoryEstimate(
        parts=(*fixed, *(part for part in parts if part.size_bytes)), moment=moment
    )


def block_activation_bytes(size: ModelSize, load: RankLoad) -> float:
    """Return what backward needs of one block, its input included.

    Of a token: two fp32 values of the residual stream (what the norms read) and in the precision's
    format 14 vectors of width d: two norms' outputs, queries, keys and values, attention's output,
    and four each around GELU; turned queries and keys more with rope; a number a head of attention
    and four of the norms. (The count follows hpctrain/train/model.py; compare Korthikanti et al.
    2022, arXiv:2205.05198, equation 2, whose 34·s·b·h has dropout masks in it.)
    """
    vectors = 14 + (2 if size.position == "rope" else 0)
    of_width = 2 * FP32 + vectors * load.value_bytes
    return _tokens(size, load) * (of_width * size.d_model + FP32 * (size.num_heads + 4))


def _tokens(size: ModelSize, load: RankLoad) -> int:
    return load.micro_batch * size.seq_len


def _fixed_parts(size: ModelSize, load: RankLoad) -> Iterator[MemoryPart]:
    """Yield what is there all the time."""
    params = count_parameters(size)
    owners = load.ranks if load.sharded else 1
    yield MemoryPart(name="weights", size_bytes=FP32 * params, formula="4·N, fp32")
    yield MemoryPart(name="gradients", size_bytes=FP32 * params, formula="4·N, fp32, flat buckets")
    yield MemoryPart(
        name="optimizer states", size_bytes=ADAM_MOMENTS * FP32 * params / owners,
        formula="8·N, AdamW's two moments in fp32"
        + (f", 1/{owners} of them (optim.sharded)" if owners > 1 else ""),
    )  # fmt: skip
    yield MemoryPart(
        name="samples and position tables",
        size_bytes=8 * load.sequences * (size.seq_len + 1) + _position_bytes(size),
        formula="8 bytes a token of the step; tables of rope or sinusoidal",
    )


def _position_bytes(size: ModelSize) -> int:
    width = {"learned": 0, "sinusoidal": size.d_model, "rope": size.head_dim}[size.position]
    return FP32 * size.seq_len * width


def _moments(size: ModelSize, load: RankLoad) -> Iterator[tuple[str, tuple[MemoryPart, ...]]]:
    """Yield the moments that can be the fullest, each with what lives then besides the rest."""
    tokens, d, layers, value = _tokens(size, load), size.d_model, size.num_layers, load.value_bytes
    block, recomputes = block_activation_bytes(size, load), load.recomputes
    stream = FP32 * tokens * d
    table = size.vocab_size * d
    scores = tokens * size.vocab_size
    block_weights = 12 * d * d
    # 16-bit copies of the matrices: autocast makes them in forward, backward uses them again.
    copies = 0 if value == FP32 else 2
    kept_copies = copies * (table + (0 if recomputes else layers * block_weights))
    kept = layers * (stream if recomputes else block)
    tail = stream + value * tokens * d + 8 * tokens
    words = (
        f"{layers} block inputs (activation checkpointing)" if recomputes
        else f"{layers} blocks × {block / tokens / d:.1f} bytes × tokens × d"
    )  # fmt: skip

    def parts(
        activations: float, copied: float, logits: float, temporary: float, exchange: float = 0.0
    ) -> tuple[MemoryPart, ...]:
        return (
            MemoryPart(name="activations", size_bytes=activations, formula=words),
            MemoryPart(name="16-bit weight copies", size_bytes=copied, formula="autocast"),
            MemoryPart(name="logits", size_bytes=logits, formula="of tokens × vocabulary values"),
            MemoryPart(
                name="temporary gradients", size_bytes=temporary,
                formula="of the layer that is computed, and of the shared embedding",
            ),
            MemoryPart(name="exchange", size_bytes=exchange, formula=_exchange_words(load)),
        )  # fmt: skip

    all_copies = copies * (table + layers * block_weights)
    forward_scores = (value + FP32 + FP32 if value != FP32 else 2 * FP32) * scores
    yield "end of the forward pass", parts(kept + tail, all_copies, forward_scores, 0)
    # The scores' log-softmax, its gradient, and the gradient before it.
    yield "start of the backward pass", parts(kept + tail, kept_copies, 3 * FP32 * scores, 0)
    # The output's weight gradient, in the precision and then in fp32.
    head = FP32 * table + (value * table if value != FP32 else 0) + value * tokens * d
    yield "output layer's gradient", parts(kept + tail, kept_copies, value * scores, head)
    # In the last block, before GELU's output is let go; the embedding's gradient, which the output
    # layer has half of, waits for its other half.
    held = FP32 * table
    own = block - stream if recomputes else 0
    own_copies = copies * block_weights if recomputes else 0
    matrix = 4 * d * d
    around = held + stream + 4 * value * tokens * d + FP32 * matrix
    if copies:
        around += value * (tokens * d + matrix)
    yield "last block's backward pass", parts(kept + own, kept_copies + own_copies, 0, around)
    wire, gathered = _exchange_bytes(size, load)
    yield "embedding's gradient", parts(0, 0, 0, 3 * held, wire)
    yield "optimizer step", parts(0, 0, 0, 0, max(wire, gathered))


def _exchange_bytes(size: ModelSize, load: RankLoad) -> tuple[float, float]:
    """Return what waits for the exchange at most after backward, and during the update."""
    if load.ranks == 1:
        return 0.0, 0.0
    params = count_parameters(size)
    wire = 0.0 if load.compression == "none" else 2.0 * params
    if not load.sharded:
        return wire, 0.0
    return wire + (wire or FP32 * params) / load.ranks, FP32 * params


def _exchange_words(load: RankLoad) -> str:
    if load.sharded:
        return "sums of the own part; all gathered weights in the update"
    return f"{load.compression} copies of the gradients, all at worst"
