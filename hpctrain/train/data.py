"""Which sequences a rank sees in which step.

The order of the samples depends on the seed alone: step k of a run with global batch G takes
positions [k·G, (k+1)·G) of an endless order (hpctrain/train/mixture.py) that visits every sample
of a source once an epoch. Ranks share out each step's positions, so the number of ranks changes
who computes, not what.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from hpctrain.train.mixture import Mixture

# Samples whose order is computed at once: a call for a few costs as much as one for hundreds.
ORDER_BLOCK = 4096
# Tokens that are read at once: handing a batch from thread to thread costs more than reading a
# small one. 2 MiB as int64; a larger step is read by itself.
CHUNK_TOKENS = 256 * 1024


def share(total: int, part: int, parts: int) -> range:
    """Return which of `total` things belong to `part`; the parts differ by one at most.

    >>> [list(share(5, part, 3)) for part in range(3)]
    [[0], [1, 2], [3, 4]]
    """
    return range(part * total // parts, (part + 1) * total // parts)


class TrainingBatches:
    """One rank's part of every step, read by a thread while the steps before it compute."""

    def __init__(
        self, samples: Mixture, *, global_batch: int, seed: int, rank: int, size: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self._samples, self._device = samples, device
        self._global_batch, self._seed = global_batch, seed
        self._mine = np.asarray(share(global_batch, rank, size), dtype=np.int64)
        self._chunk_steps = max(1, CHUNK_TOKENS // (len(self._mine) * (samples.seq_len + 1)))
        # A whole number of chunks, so that no chunk needs the order of two blocks.
        block_chunks = max(1, ORDER_BLOCK // (len(self._mine) * self._chunk_steps))
        self._block_steps = block_chunks * self._chunk_steps
        self._block: tuple[int, np.ndarray] = (-1, np.empty((0, 0), dtype=np.int64))
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="hpctrain-data")
        self._chunk: tuple[int, Tensor] | None = None
        self._next: tuple[int, Future[Tensor]] | None = None

    def read(self, step: int, grad_accum_steps: int) -> list[tuple[Tensor, Tensor]]:
        """Return the step's (inputs, targets), each (batch, seq_len) int64, by micro-step.

        Args:
            step: finished steps before this one; any, but those that follow are there already.
            grad_accum_steps: parts to cut the rank's sequences into; empty parts are left out.
        """
        number, place = divmod(step, self._chunk_steps)
        if self._chunk is None or self._chunk[0] != number:
            if self._next is None or self._next[0] != number:
                self._next = number, self._reader.submit(self._load, number)
            self._chunk = number, self._next[1].result()
            self._next = number + 1, self._reader.submit(self._load, number + 1)
        rows = self._chunk[1][place]
        parts = [share(len(rows), part, grad_accum_steps) for part in range(grad_accum_steps)]
        return [_to_device(rows[part.start : part.stop], self._device) for part in parts if part]

    def _load(self, number: int) -> Tensor:
        """Return a chunk's sequences: (steps, sequences, seq_len + 1) int64."""
        block, first = divmod(number * self._chunk_steps, self._block_steps)
        if self._block[0] != block:
            steps = block * self._block_steps + np.arange(self._block_steps)
            positions = (steps[:, None] * self._global_batch + self._mine).ravel()
            order = self._samples.samples_at(positions, self._seed)
            self._block = block, order.reshape(self._block_steps, len(self._mine))
        samples = self._block[1][first : first + self._chunk_steps].ravel()
        rows = self._samples.read(samples).reshape(self._chunk_steps, len(self._mine), -1)
        return _to_host(rows, self._device)


class ValidationBatches:
    """One rank's part of the fixed samples that every validation looks at."""

    def __init__(
        self, samples: Mixture, *, sequences: int, batch_size: int, rank: int, size: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.sequences = samples.limit(sequences)
        """Samples over all ranks: fewer than asked for where the data has no more."""
        self._samples, self._batch_size, self._device = samples, batch_size, device
        self._mine = np.asarray(share(self.sequences, rank, size), dtype=np.int64)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs, targets), each (batch, seq_len) int64."""
        # Evenly spread over the split, so that they stand for all of it.
        samples = self._samples.spread(self._mine, self.sequences)
        for first in range(0, len(samples), self._batch_size):
            rows = self._samples.read(samples[first : first + self._batch_size])
            yield _to_device(_to_host(rows, self._device), self._device)


def _to_host(tokens: np.ndarray, device: torch.device) -> Tensor:
    rows = torch.from_numpy(tokens)
    return rows.pin_memory() if device.type == "cuda" else rows


def _to_device(rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    rows = rows.to(device, non_blocking=True)
    return rows[:, :-1], rows[:, 1:]
