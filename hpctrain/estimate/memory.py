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
from dataclasses import dataclass, replace

from hpctrain.estimate.load import FP32, RankLoad
from hpctrain.estimate.moments import Live, block_activation_bytes, live_moments
from hpctrain.train.presets import ModelSize, count_parameters

ADAM_MOMENTS = 2
# CUDA's context and kernels, NCCL's buffers, and the gaps between torch's blocks. Loading the
# kernels alone takes 0.5 to 2 GB by GPU (Bekman, Machine Learning Engineering, "Anatomy of model's
# memory usage"): the upper end.
RESERVE_BYTES = 2 * 10**9
# What the sum may be off by: tests hold small trainings to 5 % on the CPU; larger ones on GPUs are
# thought to be within twice that.
MEMORY_ERROR = 0.10


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

    @property
    def at_most_bytes(self) -> float:
        """The same where the sum is too small by all of its error."""
        return self.peak_bytes * (1 + MEMORY_ERROR) + RESERVE_BYTES


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
    moment, live = max(live_moments(size, load).items(), key=lambda each: each[1].total)
    parts = (*_fixed_parts(size, load), *_live_parts(size, load, live))
    return MemoryEstimate(parts=tuple(part for part in parts if part.size_bytes), moment=moment)


def largest_micro_batch(
    size: ModelSize, load: RankLoad, memory_bytes: float, *, with_margin: bool
) -> int:
    """Return the most sequences, up to the load's own, whose forward pass fits; 0 if not even one.

    Args:
        with_margin: it must fit where the estimate is too small by all of its error too.
    """

    def fits(micro_batch: int) -> bool:
        found = estimate_memory(size, replace(load, micro_batch=micro_batch))
        return (found.at_most_bytes if with_margin else found.needed_bytes) <= memory_bytes

    if not fits(1):
        return 0
    fitting, too_large = 1, load.micro_batch + 1
    while too_large - fitting > 1:
        middle = (fitting + too_large) // 2
        fitting, too_large = (middle, too_large) if fits(middle) else (fitting, middle)
    return fitting


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
        name="samples",
        size_bytes=8 * load.sequences * (size.seq_len + 1) + _position_bytes(size),
        formula="8 bytes a token of the step; with the tables of rope or sinusoidal",
    )


def _position_bytes(size: ModelSize) -> int:
    width = {"learned": 0, "sinusoidal": size.d_model, "rope": size.head_dim}[size.position]
    return FP32 * size.seq_len * width


def _live_parts(size: ModelSize, load: RankLoad, live: Live) -> Iterator[MemoryPart]:
    tokens = load.tokens(size)
    a_token = block_activation_bytes(size, load) / tokens / size.d_model
    kept = (
        "inputs alone (activation checkpointing)" if load.recomputes else f"{a_token:.1f}·d bytes"
    )
    yield MemoryPart(
        name="activations", size_bytes=live.activations,
        formula=f"{size.num_layers} blocks, a token of each {kept}; {tokens:,} tokens",
    )  # fmt: skip
    yield MemoryPart(
        name="16-bit weight copies", size_bytes=live.copies, formula="2 bytes each, by autocast"
    )
    scores = tokens * size.vocab_size
    yield MemoryPart(
        name="logits", size_bytes=live.logits,
        formula=f"{live.logits / scores:g} bytes, {tokens:,} tokens, {size.vocab_size:,} scores",
    )  # fmt: skip
    yield MemoryPart(
        name="temporary gradients", size_bytes=live.temporary,
        formula="of the layer at work, and the embedding's that waits",
    )  # fmt: skip
    yield MemoryPart(
        name="exchange", size_bytes=live.exchange,
        formula="sums of the own part, then all weights gathered" if load.sharded
        else f"{load.compression} copies of all gradients, at worst",
    )  # fmt: skip
