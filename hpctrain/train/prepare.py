"""Text files → token shards: complete or absent, and the same from the same request."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hpctrain import __version__
from hpctrain.errors import BuildError, DataError
from hpctrain.train.encode import Progress, choose_learning, learn_tokenizer, write_splits
from hpctrain.train.prepare_request import (
    PrepareRequest,
    check_json_field,
    describe,
    open_requested_tokenizer,
)
from hpctrain.train.shards import (
    INDEX_NAME,
    SCHEMA,
    DataIndex,
    TokenizerFile,
    find_damage,
    read_index,
)
from hpctrain.train.sources import (
    SourceFile,
    choose_validation,
    cut_documents,
    find_sources,
    show,
)
from hpctrain.train.texts import DEFAULT_JSON_FIELD, TextReader
from hpctrain.train.tokenizer import (
    DEFAULT_VOCAB_SIZE,
    TOKENIZER_FILE_NAME,
    Tokenizer,
    smallest_dtype,
)


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
        DataError: a source or the tokenizer is missing or broken, or the folder is in use for
            something else.
        BuildError: numpy, or for subwords `tokenizers`, is not installed.
    """
    if find_spec("numpy") is None:
        raise BuildError("numpy: is not installed. Run: pip install 'hpctrain[train]'.")
    tokenizer = open_requested_tokenizer(request)
    files = find_sources(request.sources)
    check_json_field(request, files)
    described = describe(request, files, tokenizer)
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
    tokenizer: Tokenizer | None,
    described: dict[str, Any],
    progress: Progress,
) -> DataIndex:
    import msgspec

    documents = cut_documents(files)
    validation = choose_validation(documents, request.validation_fraction, request.seed)
    learning = [] if tokenizer else choose_learning(documents, validation)
    total_bytes = sum(document.size_bytes for document in documents)
    work_bytes = total_bytes + sum(document.size_bytes for document in learning)
    done_bytes = 0

    def count_bytes(size_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += size_bytes
        progress(done_bytes, work_bytes)

    reader = TextReader(request.json_field or DEFAULT_JSON_FIELD)
    if tokenizer is None:
        vocab_size = request.vocab_size or DEFAULT_VOCAB_SIZE
        tokenizer = learn_tokenizer(learning, reader, vocab_size, count_bytes)
    splits = write_splits(
        folder, documents, validation, tokenizer, reader, request.shard_bytes, count_bytes
    )
    names = [show(file.name) for file in files]
    index = DataIndex(
        schema=SCHEMA,
        tokenizer=tokenizer.name,
        vocab_size=tokenizer.vocab_size,
        dtype=smallest_dtype(tokenizer.vocab_size),
        separator=tokenizer.separator,
        splits=splits,
        tokenizer_file=_keep_tokenizer(folder, tokenizer),
        end_token=request.end_token,
        source={"files": len(files), "bytes": total_bytes, "first": names[:3], "last": names[-3:]},
        request=described,
        created={
            "by": f"hpctrain {__version__}",
            "python": platform.python_version(),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )
    text = json.dumps(msgspec.to_builtins(index), indent=1) + "\n"
    _write_file(folder / INDEX_NAME, text.encode("ascii"))
    return index


def _keep_tokenizer(folder: Path, tokenizer: Tokenizer) -> TokenizerFile | None:
    if tokenizer.file is None:
        return None
    _write_file(folder / TOKENIZER_FILE_NAME, tokenizer.file)
    return TokenizerFile(
        file=TOKENIZER_FILE_NAME,
        size_bytes=len(tokenizer.file),
        sha256=hashlib.sha256(tokenizer.file).hexdigest(),
    )


def _put_in_place(partial: Path, out: Path) -> None:
    """Rename, so that no reader ever sees half of it; what stood there goes last."""
    old = out.with_name(f".{out.name}.old-{os.getpid()}")
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _write_file(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
