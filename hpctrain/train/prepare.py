"""Text files → token shards: complete or absent, and the same from the same request."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hpctrain.errors import BuildError, DataError
from hpctrain.train.shard_writer import ShardWriter
from hpctrain.train.shards import (
    INDEX_NAME,
    SCHEMA,
    TRAIN,
    VALIDATION,
    DataIndex,
    find_damage,
    read_index,
)
from hpctrain.train.sources import (
    Document,
    SourceFile,
    choose_validation,
    cut_documents,
    find_sources,
    fingerprint,
    show,
)
from hpctrain.train.tokenizer import Tokenizer, open_tokenizer

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareRequest:
    """What is asked for."""

    sources: tuple[str, ...]
    """`stdlib`, files and folders."""
    out: Path
    tokenizer: str = "bytes"
    validation_fraction: float = 0.01
    """Part of the bytes that validates, 0 to 0.5."""
    seed: int = 0
    """Chooses which documents validate."""
    shard_bytes: int = 256 * 1024 * 1024
    """Largest shard."""
    force: bool = False
    """Make it again, whatever prepared data is in place."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is there now. `made` is False where it was there already."""

    index: DataIndex
    made: bool


def prepare_data(
    request: PrepareRequest, progress: Progress = lambda done_bytes, total_bytes: None
) -> Prepared:
    """Write the shards and the index that `request` asks for, or find them in place.

    Args:
        progress: called with the bytes read so far and in all.

    Raises:
        DataError: a source is missing, or the folder is in use for something else.
        BuildError: numpy is not installed.
    """
    tokenizer = open_tokenizer(request.tokenizer)
    if find_spec("numpy") is None:
        raise BuildError("numpy: is not installed. Run: pip install 'hpctrain[train]'.")
    files = find_sources(request.sources)
    described = _describe(request, files)
    out = Path(os.path.abspath(request.out))
    kept = _find_existing(out, described, request)
    if kept:
        return Prepared(kept, made=False)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        try:
            index = _write(partial, request, files, tokenizer, described, progress)
            _put_in_place(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as problem:
        place = show(os.fsdecode(problem.filename or out))
        raise DataError(
            f"{place}: {problem.strerror}. Nothing was left behind; check the path, the "
            "permissions and the space."
        ) from problem
    return Prepared(index, made=True)


def _describe(request: PrepareRequest, files: Sequence[SourceFile]) -> dict[str, Any]:
    return {
        "sources": [show(source) for source in request.sources],
        "source_names_and_sizes_sha256": fingerprint(files),
        "tokenizer": request.tokenizer,
        "validation_fraction": request.validation_fraction,
        "seed": request.seed,
        "shard_bytes": request.shard_bytes,
    }


def _find_existing(
    out: Path, described: dict[str, Any], request: PrepareRequest
) -> DataIndex | None:
    """Return what is there, if it is intact and what was asked for; None: (re)make it."""
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / INDEX_NAME).is_file():
        # Also with --force: whatever this is, it is not ours to delete.
        raise DataError(
            f"{show(str(out))}: is not a folder of prepared data; expected no such folder, or "
            f"one with {INDEX_NAME}. Choose another --out."
        )
    if request.force:
        return None
    index = read_index(out)
    differences = [
        f"{key} was {index.request.get(key)!r}, got {value!r}"
        for key, value in described.items()
        if index.request.get(key) != value
    ]
    if not differences:
        return None if find_damage(out, index) else index
    raise DataError(
        f"{show(str(out))}: holds data of another request: {'; '.join(differences)}. "
        "Give --force to replace it, or another --out."
    )


def _write(
    folder: Path,
    request: PrepareRequest,
    files: Sequence[SourceFile],
    tokenizer: Tokenizer,
    described: dict[str, Any],
    progress: Progress,
) -> DataIndex:
    import msgspec
    import numpy as np

    from hpctrain import __version__

    documents = cut_documents(files)
    validation = choose_validation(documents, request.validation_fraction, request.seed)
    writers = {name: ShardWriter(folder, name, tokenizer.dtype, request.shard_bytes)
               for name in (TRAIN, VALIDATION)}  # fmt: skip
    separator = np.array([tokenizer.separator], dtype=tokenizer.dtype)
    total_bytes = sum(document.size_bytes for document in documents)
    done_bytes = 0
    for place, document in enumerate(documents):
        writer = writers[VALIDATION if place in validation else TRAIN]
        writer.write(tokenizer.encode(_read(document)))
        writer.write(separator)
        writer.documents += 1
        done_bytes += document.size_bytes
        progress(done_bytes, total_bytes)
    names = [show(file.name) for file in files]
    index = DataIndex(
        schema=SCHEMA,
        tokenizer=tokenizer.name,
        vocab_size=tokenizer.vocab_size,
        dtype=tokenizer.dtype,
        separator=tokenizer.separator,
        splits={name: writer.close() for name, writer in writers.items()},
        source={"files": len(files), "bytes": total_bytes, "first": names[:3], "last": names[-3:]},
        request=described,
        created={
            "by": f"hpctrain {__version__}",
            "python": platform.python_version(),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )
    _write_json(folder / INDEX_NAME, msgspec.to_builtins(index))
    return index


def _read(document: Document) -> bytes:
    with open(document.file.path, "rb") as stream:
        stream.seek(document.start)
        return stream.read(document.size_bytes)


def _put_in_place(partial: Path, out: Path) -> None:
    """Rename, so that no reader ever sees half of it; what stood there goes last."""
    old = out.with_name(f".{out.name}.old-{os.getpid()}")
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _write_json(path: Path, value: Any) -> None:
    import json

    with path.open("w", encoding="ascii") as stream:
        stream.write(json.dumps(value, indent=1) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
