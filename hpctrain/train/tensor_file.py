"""A file of named tensors whose data is one block of bytes, in the safetensors format.

The safetensors library reads what this writes; writing goes through here, because the block
then goes from a preallocated buffer to the disk without a copy, and because a merge of files
(`hpctrain export`) then needs neither torch nor the memory for a model.

Format: 8 bytes little-endian length, a JSON header, the data without holes
(https://github.com/huggingface/safetensors, README, section "Format").
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

BLOCK_BYTES = 8 << 20
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}


class TensorEntry(NamedTuple):
    """A tensor of a file; `dtype` is one of :data:`ITEM_BYTES`."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        size = ITEM_BYTES[self.dtype]
        for length in self.shape:
            size *= length
        return size


class Written(NamedTuple):
    """What a file turned out to be."""

    size_bytes: int
    sha256: str


def encode_header(entries: Sequence[TensorEntry], metadata: Mapping[str, str]) -> bytes:
    """Return the header of a file whose data are `entries`, one behind the other."""
    table: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for entry in entries:
        end = offset + entry.size_bytes
        table[entry.name] = {
            "dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [offset, end],
        }  # fmt: skip
        offset = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin on a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return a file's header, and where in the file its data begin (bytes).

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("its header is longer than the file")
        return json.loads(file.read(length)), 8 + length


def write_file(path: Path, blocks: Iterable[bytes | memoryview]) -> Written:
    """Write `blocks` one behind the other, and return when they are on the disk.

    Raises:
        OSError: the disk is full, or will not be written.
    """
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("wb", buffering=0) as file:
        for block in blocks:
            view = memoryview(block)
            for start in range(0, len(view), BLOCK_BYTES):
                part = view[start : start + BLOCK_BYTES]
                digest.update(part)  # while the block is in the cache; releases the GIL
                while part:
                    part = part[file.write(part) :]
            size_bytes += len(view)
        os.fsync(file.fileno())
    return Written(size_bytes, digest.hexdigest())


def sync_folder(folder: Path) -> None:
    """Return when the folder's entries, not only its files, are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """Return a file's sha256.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
