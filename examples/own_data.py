"""Data of your own: sums, made up as they are needed, in place of prepared text.

From this folder:

    hpctrain run --np 2 --name sums --set data.factory=own_data:build --set model.seq_len=64
    hpctrain generate runs/sums --prompt "12+34="

The trainer does the rest as for prepared data: order, shares of ranks, epochs, resuming.
"""

import numpy as np

SUMS = {"train": 200_000, "validation": 2_000}


class Sums:
    """Samples of lines like ``12+34=46``, as bytes."""

    vocab_size = 256
    tokenizer = "bytes"  # so that `hpctrain generate` can spell them

    def __init__(self, split: str, seq_len: int) -> None:
        self.split, self.seq_len = split, seq_len

    def __len__(self) -> int:
        return SUMS[self.split]

    def read(self, samples: np.ndarray) -> np.ndarray:
        """(n,) int64 → (n, seq_len + 1) tokens. A sample is the same whichever rank reads it."""
        return np.stack([self._write(int(sample)) for sample in samples])

    def _write(self, sample: int) -> np.ndarray:
        dice = np.random.default_rng([sample, len(self.split)])
        lines = [f"{a}+{b}={a + b}\n" for a, b in dice.integers(100, size=(self.seq_len, 2))]
        return np.frombuffer("".join(lines).encode(), dtype=np.uint8)[: self.seq_len + 1]


def build(split: str, seq_len: int) -> Sums:
    """Return the samples of `split`: "train" or "validation"."""
    return Sums(split, seq_len)
