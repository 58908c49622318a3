"""A checkpoint's model as one safetensors file, for other programs. Needs no torch.

The ranks' pieces are copied byte by byte into their places, so a model of any size takes no
memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpctrain.errors import CheckpointError, raise_all
from hpctrain.train.checkpoint_folder import find_checkpoint, find_damage, read_index
from hpctrain.train.tensor_file import (
    BLOCK_BYTES,
    ITEM_BYTES,
    TensorEntry,
    encode_header,
    read_header,
    sync_folder,
    write_file,
)

MODEL_PREFIX = "model/"


class Exported(NamedTuple):
    """What was written, and from where."""

    checkpoint: Path
    step: int
    tensors: int
    size_bytes: int


def export_model(checkpoint: Path, out: Path, *, force: bool = False) -> Exported:
    """Write the model's tensors, without the optimizer's, as a safetensors file.

    Args:
        checkpoint: a checkpoint's folder, or a run's, whose newest one it is then.
        out: the file to make; complete or absent.
        force: write over an existing file.

    Raises:
        CheckpointError: the checkpoint is missing or damaged, or `out` cannot be written.
    """
    if out.exists() and not force:
        raise CheckpointError(
            f"--out: exists already, got {out}; expected a new file. Choose another, or give "
            "--force."
        )
    folder = find_checkpoint(checkpoint)
    index = read_index(folder)
    raise_all(CheckpointError, [f"{problem}." for problem in find_damage(folder, index)])
    tensors = {
        name.removeprefix(MODEL_PREFIX): tensor
        # Large items first, so that each tensor begins at a multiple of its own item size.
        for name, tensor in sorted(
            index["tensors"].items(), key=lambda item: (-ITEM_BYTES[item[1]["dtype"]], item[0])
        )
        if name.startswith(MODEL_PREFIX)
    }
    entries = [TensorEntry(name, t["dtype"], tuple(t["shape"])) for name, t in tensors.items()]
    metadata = {"format": "pt", "step": str(index["step"]), "config_digest": index["config_digest"]}
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        written = write_file(
            temporary, _contents(folder, tensors, encode_header(entries, metadata))
        )
        temporary.rename(out)
        sync_folder(out.parent)
    except OSError as problem:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"{out}: cannot be written: {problem.strerror}.") from problem
    return Exported(folder, index["step"], len(tensors), written.size_bytes)


def _contents(folder: Path, tensors: Mapping[str, Any], header: bytes) -> Iterator[bytes]:
    yield header
    headers: dict[str, tuple[dict[str, Any], int]] = {}
    for tensor in tensors.values():
        for _, _, file, key in tensor["pieces"]:
            if file not in headers:
                headers[file] = read_header(folder / file)
            table, start = headers[file]
            begin, end = table[key]["data_offsets"]
            with (folder / file).open("rb") as source:
                source.seek(start + begin)
                left = end - begin
                while left:
                    block = source.read(min(left, BLOCK_BYTES))
                    left -= len(block)
                    yield block
