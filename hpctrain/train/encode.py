"""Documents → token shards, in batches: memory does not grow with the data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from hpctrain.train.shard_writer import ShardWriter
from hpctrain.train.shards import TRAIN, VALIDATION, Split
from hpctrain.train.sources import Document
from hpctrain.train.texts import TextReader
from hpctrain.train.tokenizer import SubwordTokenizer, Tokenizer, learn_bpe, smallest_dtype

Progress = Callable[[int, int], None]

# Enough that all cores of one machine are busy, and small against their memory.
BATCH_BYTES = 4 * 1024 * 1024
# Merges learned from more text hardly change, and learning is the slow part.
LEARN_BYTES = 512 * 1024 * 1024


def choose_learning(documents: Sequence[Document], validation: Collection[int]) -> list[Document]:
    """Return what a tokenizer learns from: training documents, evenly drawn, at most 512 MiB."""
    training = [d for place, d in enumerate(documents) if place not in validation]
    total_bytes = sum(document.size_bytes for document in training)
    parts = -(-total_bytes // LEARN_BYTES)
    return training[::parts] if parts > 1 else training


def learn_tokenizer(
    documents: Sequence[Document], reader: TextReader, vocab_size: int,
    count_bytes: Callable[[int], None],
) -> SubwordTokenizer:  # fmt: skip
    """Return a BPE tokenizer learned from `documents`.

    Args:
        count_bytes: called with the size of each document read.

    Raises:
        DataError: lines of JSON are broken.
        BuildError: the library is not installed.
    """

    def texts() -> Iterator[bytes]:
        for document in documents:
            yield from reader.read(document)
            count_bytes(document.size_bytes)

    tokenizer = learn_bpe(texts(), vocab_size)
    reader.check()
    return tokenizer


def write_splits(
    folder: Path, documents: Sequence[Document], validation: Collection[int],
    tokenizer: Tokenizer, reader: TextReader, shard_bytes: int,
    count_bytes: Callable[[int], None],
) -> dict[str, Split]:  # fmt: skip
    """Encode `documents` into shards in `folder`; those whose places are in `validation` apart.

    Raises:
        DataError: lines of JSON are broken.
    """
    dtype = smallest_dtype(tokenizer.vocab_size)
    writers = {name: ShardWriter(folder, name, dtype, shard_bytes) for name in (TRAIN, VALIDATION)}
    waiting: dict[str, list[bytes]] = {TRAIN: [], VALIDATION: []}
    read_bytes = 0
    for place, document in enumerate(documents):
        waiting[VALIDATION if place in validation else TRAIN] += reader.read(document)
        read_bytes += document.size_bytes
        if read_bytes >= BATCH_BYTES or place == len(documents) - 1:
            for name, texts in waiting.items():
                writers[name].write_documents(tokenizer.encode_all(texts), tokenizer.separator)
                texts.clear()
            count_bytes(read_bytes)
            read_bytes = 0
    reader.check()
    return {name: writer.close() for name, writer in writers.items()}
