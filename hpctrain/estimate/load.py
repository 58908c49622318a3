"""What one rank computes with: the part of a job that decides about memory."""

from __future__ import annotations

from dataclasses import dataclass

from hpctrain.train.presets import ModelSize

FP32 = 4
SIXTEEN_BIT = ("bf16", "fp16", "apex-O1", "apex-O2")


@dataclass(frozen=True, kw_only=True, slots=True)
class RankLoad:
    """Args:
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
        return 2 if self.precision in SIXTEEN_BIT else FP32

    @property
    def copy_bytes(self) -> int:
        """Of a weight's copy in the precision's format; 0 where the fp32 weights are used."""
        return 2 if self.precision in SIXTEEN_BIT else 0

    def tokens(self, size: ModelSize) -> int:
        """Return the tokens of one forward pass."""
        return self.micro_batch * size.seq_len
