"""Which sequences a rank sees in which step.

The order of the samples depends on the seed alone: step k of a run with global batch G takes
positions [k·G, (k+1)·G) of an endless order that visits every sample once an epoch. Ranks
share out each step's positions, so the number of ranks changes who computes, not what.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hpctrain.config.schema import TrainConfig
from hpctrain.errors import ConfigError
from hpctrain.train.shards import Windows

DEFAULT_BATCH_SIZE_PER_RANK = 8
_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15


def resolve_global_batch_size(train: TrainConfig, size: int) -> int:
    """Return the sequences of one optimizer step over all `size` ranks.

    Raises:
        ConfigError: there are fewer sequences than ranks.
    """
    if train.global_batch_size is None:
        return size * (train.batch_size_per_rank or DEFAULT_BATCH_SIZE_PER_RANK)
    if train.global_batch_size < size:
        raise ConfigError(
            f"train.global_batch_size: fewer sequences than ranks, got {train.global_batch_size} "
            f"for {size} ranks; expected at least {size}. Start fewer ranks (--np "
            f"{train.global_batch_size}) or give a larger batch."
        )
    return train.global_batch_size


def share(total: int, part: int, parts: int) -> range:
    """Return which of `total` things belong to `part`; the parts differ by one at most.

    >>> [list(share(5, part, 3)) for part in range(3)]
    [[0], [1, 2], [3, 4]]
    """
    return range(part * total // parts, (part + 1) * total // parts)


def sample_at(positions: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the samples at `positions` of the endless shuffled order: (n,) int64 → (n,) int64.

    Each epoch, positions [e·count, (e+1)·count), is its own permutation of the samples
    0 … count-1, computed where it is needed: no table, so no memory, at any data size. It is a
    Feistel network over the next power of four with cycle walking (Black and Rogaway 2002,
    "Ciphers with Arbitrary Finite Domains", method 2), its rounds mixed by splitmix64
    (Steele, Lea and Flood 2014).
    """
    epoch, place = np.divmod(positions.astype(np.uint64), np.uint64(count))
    key = _mix(_mix(np.full_like(place, seed)) + epoch)
    half_bits = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    rounds = [_mix(key + np.uint64(number)) for number in range(1, _ROUNDS + 1)]
    walking = np.arange(len(place))
    while len(walking):
        left, right = place[walking] >> half_bits, place[walking] & mask
        for round_key in rounds:
            left, right = right, left ^ (_mix(right + round_key[walking]) & mask)
        place[walking] = (left << half_bits) | right
        walking = walking[place[walking] >= count]
    return place.astype(np.int64)


class TrainingBatches:
    """One rank's part of every step."""

    def __init__(
        self, windows: Windows, *, global_batch: int, seed: int, rank: int, size: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self._windows, self._device = windows, device
        self._global_batch, self._seed = global_batch, seed
        self._mine = share(global_batch, rank, size)

    def read(self, step: int, grad_accum_steps: int) -> list[tuple[Tensor, Tensor]]:
        """Return the step's (inputs, targets), each (batch, seq_len) int64, by micro-step.

        Args:
            step: finished steps before this one.
            grad_accum_steps: parts to cut the rank's sequences into; empty parts are left out.
        """
        positions = step * self._global_batch + np.asarray(self._mine)
        samples = sample_at(positions, len(self._windows), self._seed)
        parts = [share(len(samples), part, grad_accum_steps) for part in range(grad_accum_steps)]
        return [
            _to_device(self._windows.read(samples[part.start : part.stop]), self._device)
            for part in parts
            if part
        ]


class ValidationBatches:
    """One rank's part of the fixed windows that every validation looks at."""

    def __init__(
        self, windows: Windows, *, sequences: int, batch_size: int, rank: int, size: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.sequences = min(sequences, len(windows))
        """Windows over all ranks: fewer than asked for where the data has no more."""
        self._windows, self._batch_size, self._device = windows, batch_size, device
        self._mine = share(self.sequences, rank, size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs, targets), each (batch, seq_len) int64."""
        # Evenly spread over the split, so that they stand for all of it.
        samples = (
            np.asarray(self._mine, dtype=np.int64) * len(self._windows) // max(self.sequences, 1)
        )
        for first in range(0, len(samples), self._batch_size):
            rows = self._windows.read(samples[first : first + self._batch_size])
            yield _to_device(rows, self._device)


def _to_device(tokens: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    rows = torch.from_numpy(tokens)
    if device.type == "cuda":
        rows = rows.pin_memory().to(device, non_blocking=True)
    return rows[:, :-1], rows[:, 1:]


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's output function, (n,) uint64 → (n,) uint64, wrapping round at 2^64."""
    x = x + np.uint64(_GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
