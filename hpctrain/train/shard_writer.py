"""Tokens → shard files of a largest size, with their checksums."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hpctrain.train.shards import Shard, Split

if TYPE_CHECKING:
    import numpy as np


class ShardWriter:
    """Writes one split's tokens, a new file whenever one is full."""

    def __init__(self, folder: Path, split: str, dtype: str, shard_bytes: int) -> None:
        import numpy as np

        self.documents = 0
        self._folder, self._split = folder, split
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._max_tokens = max(shard_bytes // self._dtype.itemsize, 1)
        self._shards: list[Shard] = []
        self._stream: BinaryIO | None = None
        self._tokens = 0
        self._digest = hashlib.sha256()

    def write_documents(self, documents: Sequence[np.ndarray], separator: int) -> None:
        """Write each document's tokens and the separator behind them."""
        import numpy as np

        if not documents:
            return
        end = np.array([separator], dtype=self._dtype)
        self.write(np.concatenate([part for tokens in documents for part in (tokens, end)]))
        self.documents += len(documents)

    def write(self, tokens: np.ndarray) -> None:
        """Write tokens as they are."""
        while len(tokens):
            if self._stream is None:
                name = f"{self._split}-{len(self._shards):05d}.bin"
                self._stream = (self._folder / name).open("wb")
                self._tokens, self._digest = 0, hashlib.sha256()
            room = self._max_tokens - self._tokens
            block = tokens[:room].astype(self._dtype, copy=False).tobytes()
            self._stream.write(block)
            self._digest.update(block)
            self._tokens += len(tokens[:room])
            tokens = tokens[room:]
            if self._tokens == self._max_tokens:
                self._finish_shard()

    def close(self) -> Split:
        if self._stream is not None:
            self._finish_shard()
        return Split(
            tokens=sum(shard.tokens for shard in self._shards),
            documents=self.documents,
            shards=tuple(self._shards),
        )

    def _finish_shard(self) -> None:
        stream, self._stream = self._stream, None
        assert stream is not None
        stream.flush()
        os.fsync(stream.fileno())
        stream.close()
        self._shards.append(
            Shard(
                file=Path(stream.name).name,
                tokens=self._tokens,
                size_bytes=self._tokens * self._dtype.itemsize,
                sha256=self._digest.hexdigest(),
            )
        )
