"""A model of your own: a recurrent network in place of the transformer.

From this folder:

    hpctrain run --np 2 --set model.factory=own_model:build

The trainer does the rest as for its own model: exchange, precision, optimizer, checkpoints.
"""

import torch
from torch import nn


class Recurrent(nn.Module):
    """Predicts each next token from those before it."""

    def __init__(self, vocab_size: int, width: int = 64) -> None:
        super().__init__()
        # In the order of the forward pass: gradients then leave while backward still runs.
        self.embedding = nn.Embedding(vocab_size, width)
        self.memory = nn.GRU(width, width, batch_first=True)
        self.scores = nn.Linear(width, vocab_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, seq) int64 → scores (batch, seq, vocab_size)"""
        remembered, _ = self.memory(self.embedding(tokens))
        return self.scores(remembered)


def build(vocab_size: int, seq_len: int) -> nn.Module:
    """Return the model, on the CPU. Random numbers are already seeded, alike on all ranks."""
    return Recurrent(vocab_size)
