"""What `hpctrain data prepare` is asked for, and whether it goes together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpctrain.errors import DataError, raise_all
from hpctrain.train.sources import JSON_LINES, SourceFile, fingerprint, is_json_lines, show
from hpctrain.train.texts import DEFAULT_JSON_FIELD
from hpctrain.train.tokenizer import (
    BPE,
    BYTES,
    DEFAULT_VOCAB_SIZE,
    Tokenizer,
    import_tokenizers,
    open_tokenizer,
)

MIN_VOCAB_SIZE = 257


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareRequest:
    """What is asked for."""

    sources: tuple[str, ...]
    """`stdlib`, files and folders."""
    out: Path
    tokenizer: str = BYTES
    """`bytes`, `bpe` (learned from the text), or the path of a tokenizers file."""
    vocab_size: int | None = None
    """Tokens that `bpe` learns; 50257 where not given."""
    end_token: str | None = None
    """Name of the token that ends a document, in a tokenizers file that has an unusual one."""
    json_field: str | None = None
    """Where the text is in a line of JSON; `text` where not given."""
    validation_fraction: float = 0.01
    """Part of the bytes that validates, 0 to 0.5."""
    seed: int = 0
    """Chooses which documents validate."""
    shard_bytes: int = 256 * 1024 * 1024
    """Largest shard."""
    force: bool = False
    """Make it again, whatever prepared data is in place."""


def open_requested_tokenizer(request: PrepareRequest) -> Tokenizer | None:
    """Return the tokenizer that is asked for; None where it is still to be learned.

    Raises:
        DataError: there is none of that name, or settings for it that do not go with it.
        BuildError: the library that it needs is not installed.
    """
    learned, file = request.tokenizer == BPE, request.tokenizer not in (BYTES, BPE)
    errors = []
    if request.vocab_size is not None and not learned:
        errors.append(
            f"--vocab-size: only {BPE} is learned to a size, got {request.vocab_size} with "
            f"--tokenizer {show(request.tokenizer)}. Leave it out, or give --tokenizer {BPE}."
        )
    elif request.vocab_size is not None and request.vocab_size < MIN_VOCAB_SIZE:
        errors.append(
            f"--vocab-size: too small, got {request.vocab_size}; expected at least "
            f"{MIN_VOCAB_SIZE}: 256 bytes and the end of a document."
        )
    if request.end_token is not None and not file:
        errors.append(
            f"--end-token: is for a tokenizers file, got {request.end_token!r} with --tokenizer "
            f"{request.tokenizer}. Leave it out."
        )
    raise_all(DataError, errors)
    if learned:
        import_tokenizers()  # better missed now than after reading all the text
        return None
    return open_tokenizer(request.tokenizer, request.end_token)


def check_json_field(request: PrepareRequest, files: Sequence[SourceFile]) -> None:
    """Refuse a field's name where nothing has fields.

    Raises:
        DataError: a field is named, and no file holds lines of JSON.
    """
    if request.json_field is not None and not any(is_json_lines(file.path) for file in files):
        raise DataError(
            f"--json-field: is for lines of JSON, got {request.json_field!r} and no *{JSON_LINES} "
            "file. Leave it out, or rename the file."
        )


def describe(
    request: PrepareRequest, files: Sequence[SourceFile], tokenizer: Tokenizer | None
) -> dict[str, Any]:
    """Return what is asked for in a form that two requests can be compared by."""
    # Values that play no part are None, as they are in an index that knows nothing of them.
    json_lines = any(is_json_lines(file.path) for file in files)
    content = tokenizer.file if tokenizer else None
    return {
        "sources": [show(source) for source in request.sources],
        "source_names_and_sizes_sha256": fingerprint(files),
        "tokenizer": tokenizer.name if tokenizer else BPE,
        "tokenizer_sha256": hashlib.sha256(content).hexdigest() if content else None,
        "vocab_size": None if tokenizer else request.vocab_size or DEFAULT_VOCAB_SIZE,
        "end_token": request.end_token,
        "json_field": (request.json_field or DEFAULT_JSON_FIELD) if json_lines else None,
        "validation_fraction": request.validation_fraction,
        "seed": request.seed,
        "shard_bytes": request.shard_bytes,
    }
