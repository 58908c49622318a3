"""A copy of a rank's share in memory of our own, and from there onto the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hpctrain.train.checkpoint_folder import share_name
from hpctrain.train.state import Piece, encode_rng
from hpctrain.train.tensor_file import encode_header, write_file

RNG_KEY = "rng"


class Snapshot:
    """Memory for one rank's pieces, laid out as the data of its file."""

    def __init__(self, pieces: Sequence[Piece], device: torch.device) -> None:
        # Large items first, so that each piece begins at a multiple of its own item size.
        self._pieces = sorted(pieces, key=lambda piece: -piece.values.element_size())
        self.size_bytes = sum(piece.values.nbytes for piece in pieces)
        on_gpu = device.type == "cuda"
        self._buffer = torch.empty(self.size_bytes, dtype=torch.uint8, pin_memory=on_gpu)
        self._buffer.fill_(0)  # touch every page now, not while a step waits
        self._copied = torch.cuda.Event() if on_gpu else None
        self._copies, offset = [], 0
        for piece in self._pieces:
            place = self._buffer[offset : offset + piece.values.nbytes]
            self._copies.append(place.view(piece.values.dtype))
            offset += piece.values.nbytes

    def take(self) -> None:
        """Copy; on a GPU, behind what is queued there and without waiting for it."""
        with torch.no_grad():
            for copy, piece in zip(self._copies, self._pieces, strict=True):
                copy.copy_(piece.values, non_blocking=True)
        if self._copied is not None:
            self._copied.record()

    def write(self, folder: Path, rank: int, rng: Mapping[str, Any]) -> None:
        """Write the copy, and beside it what the index must know of it; flushed to disk.

        Raises:
            OSError: the disk is full, or will not be written.
        """
        if self._copied is not None:
            self._copied.synchronize()
        folder.mkdir(parents=True, exist_ok=True)
        header = encode_header([piece.entry for piece in self._pieces], {RNG_KEY: encode_rng(rng)})
        name = share_name(rank)
        written = write_file(folder / name, [header, memoryview(self._buffer.numpy())])
        share = {
            "file": name, "bytes": written.size_bytes, "sha256": written.sha256,
            "pieces": [piece.describe() for piece in self._pieces],
        }  # fmt: skip
        write_file(part_path(folder, rank), [json.dumps(share).encode()])


def part_path(folder: Path, rank: int) -> Path:
    """Return where a rank says what it has written; gone once the index holds it."""
    return folder / f".rank-{rank:05d}.json"
