"""A small model whose step takes a given time, and that misbehaves when a file says so.

Copied into the folder where a training runs. `pace` there holds a step's seconds. While it trains,
``orders/WORD-RANK`` is obeyed once: `nan` spoils a loss, `leave` is sys.exit(0), `vanish` is
os._exit(0), `sleep` a rank that is stuck in Python. As long as there is ``orders/slow-RANK``, that
rank is slow.
"""

import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

WIDTH = 128
SLOW = 2.5
ORDERS = Path("orders")


class Paced(nn.Module):
    """Predicts each next token from the last."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.scores = nn.Linear(WIDTH, vocab_size)
        self.pace_s = float(Path("pace").read_text())
        self.rank = os.environ.get("HPCTRAIN_RANK", "0")

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, seq) int64 → scores (batch, seq, vocab_size)"""
        scores = self.scores(torch.relu(self.hidden(self.embedding(tokens))))
        if not self.training:
            return scores
        time.sleep(self.pace_s * (SLOW if (ORDERS / f"slow-{self.rank}").exists() else 1.0))
        if self._is_ordered("leave"):
            sys.exit(0)
        if self._is_ordered("vanish"):
            os._exit(0)
        if self._is_ordered("sleep"):
            time.sleep(3600)
        return scores * float("nan") if self._is_ordered("nan") else scores

    def _is_ordered(self, word: str) -> bool:
        try:
            (ORDERS / f"{word}-{self.rank}").unlink()
        except OSError:
            return False
        return True


def build(vocab_size: int, seq_len: int) -> nn.Module:
    """Return the model; every rank builds the same."""
    return Paced(vocab_size)
