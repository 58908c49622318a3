"""What the peers share with hpctrain, so that only the exchange differs: model, data, clock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from hpctrain.train.model import build_model, sum_token_losses
from hpctrain.train.presets import ModelSize

BATCH_SIZE, SEQ_LEN, LEARNING_RATE, CLIP_NORM = 4, 128, 1e-3, 1.0
SHAPE = {"d_model": 384, "num_layers": 6, "num_heads": 6, "vocab_size": 256, "seq_len": SEQ_LEN}


def make_model() -> nn.Module:
    """Return the 10.9M-parameter transformer with hpctrain's own code and initial weights."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return build_model(ModelSize(**SHAPE, position="learned"), seed=1234)


def make_optimizer(model: nn.Module) -> torch.optim.AdamW:
    """Return PyTorch's fused AdamW, with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True)


def batches(rank: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random (inputs, targets), each (4, 128), from the file that hpctrain reads, too."""
    tokens = np.memmap(os.environ["PEER_TOKENS"], dtype=np.uint8, mode="r")
    generator = np.random.default_rng(rank)
    for _ in range(int(os.environ["PEER_STEPS"])):
        starts = generator.integers(0, len(tokens) - SEQ_LEN - 1, BATCH_SIZE)
        rows = np.stack([tokens[start : start + SEQ_LEN + 1] for start in starts])
        both = torch.from_numpy(rows.astype(np.int64))
        yield both[:, :-1], both[:, 1:]


def mean_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of a rank's batch (nats a token)."""
    return sum_token_losses(scores, targets) / targets.numel()


class Stopwatch:
    """The time of each step, printed at the end as a line of JSON."""

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._last_s = time.perf_counter()

    def lap(self) -> None:
        """Call after each step."""
        now_s = time.perf_counter()
        self._times_s.append(now_s - self._last_s)
        self._last_s = now_s

    def report(self) -> None:
        """Print all steps' times (s)."""
        print(json.dumps({"step_times_s": self._times_s}), flush=True)
