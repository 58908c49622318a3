"""How text becomes tokens, and tokens text again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hpctrain.errors import BuildError, DataError, did_you_mean
from hpctrain.train.sources import show

if TYPE_CHECKING:
    import numpy as np

    from hpctrain.train.shards import DataIndex

BYTES, BPE = "bytes", "bpe"
DEFAULT_VOCAB_SIZE = 50257
"""GPT-2's: 256 bytes, 50,000 merges and the end of a document (Radford et al. 2019, 2.2)."""
TOKENIZER_FILE_NAME = "tokenizer.json"
END_TOKEN = "<|endoftext|>"
KNOWN_END_TOKENS = (END_TOKEN, "<|end_of_text|>", "</s>", "<eos>", "[SEP]")


class Tokenizer(Protocol):
    """What preparing, training and generating need to know about a tokenizer."""

    name: str
    vocab_size: int
    """Tokens are 0 … vocab_size - 1."""
    separator: int
    """Token that ends each document; no text becomes this token."""
    file: bytes | None
    """A tokenizer.json that says it all; None where there is nothing to say."""

    def encode(self, text: bytes) -> np.ndarray:
        """Return a text's tokens, (tokens,), without a separator."""
        ...

    def encode_all(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        """Return each text's tokens: quicker than one by one."""
        ...

    def decode(self, tokens: Iterable[int]) -> bytes:
        """Return the text of `tokens`."""
        ...


class BytesTokenizer:
    """Each byte is its own token: any file will do, UTF-8 or not.

    Byte 0 is reserved as the document separator, for text does not contain it; where a file
    does, `encode` leaves it out.
    """

    name = BYTES
    vocab_size = 256
    separator = 0
    file = None

    def encode(self, text: bytes) -> np.ndarray:
        import numpy as np

        return np.frombuffer(text.replace(b"\0", b""), dtype=np.uint8)

    def encode_all(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        return [self.encode(text) for text in texts]

    def decode(self, tokens: Iterable[int]) -> bytes:
        return bytes(tokens)


class SubwordTokenizer:
    """A Hugging Face `tokenizers` file, whatever its model.

    What is not UTF-8 becomes U+FFFD, and a special token's name inside a text is text: a
    document cannot pretend to end.
    """

    def __init__(self, name: str, file: bytes, end_token: str | None = None) -> None:
        """Read a tokenizer.json.

        Raises:
            DataError: it is none, or has no token that could end a document.
            BuildError: the library is not installed.
        """
        self.name, self.file = name, file
        library = import_tokenizers()
        try:
            self._tokenizer = library.Tokenizer.from_buffer(file)
        except Exception as problem:  # the library raises plain Exception
            raise DataError(
                f"{show(name)}: no tokenizers file: {problem}. Give a tokenizer.json of Hugging "
                f"Face's tokenizers, or --tokenizer {BPE}."
            ) from problem
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # Not get_vocab_size: numbers may have gaps, and a model needs room for the largest.
        self.vocab_size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())
        ends = (end_token,) if end_token else KNOWN_END_TOKENS
        found = [end for end in map(self._tokenizer.token_to_id, ends) if end is not None]
        if not found:
            raise DataError(
                f"{show(name)}: has no token that ends a document, looked for "
                f"{', '.join(ends)}; expected one that it knows. Name it with --end-token."
            )
        self.separator = found[0]

    def encode(self, text: bytes) -> np.ndarray:
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        import numpy as np

        readable = [text.decode("utf-8", errors="replace") for text in texts]
        dtype = smallest_dtype(self.vocab_size)
        encoded = self._tokenizer.encode_batch_fast(readable, add_special_tokens=False)
        return [np.array(one.ids, dtype=dtype) for one in encoded]

    def decode(self, tokens: Iterable[int]) -> bytes:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=False).encode()


def learn_bpe(texts: Iterable[bytes], vocab_size: int) -> SubwordTokenizer:
    """Return a byte-level BPE tokenizer learned from `texts`: the same from the same texts.

    Byte-level as GPT-2's (Radford et al. 2019, section 2.2), so every text has tokens. Memory
    holds the different words, not the texts. A small text gives fewer than `vocab_size` tokens.

    Raises:
        BuildError: the library is not installed.
    """
    library = import_tokenizers()
    byte_level = library.pre_tokenizers.ByteLevel
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_TOKEN],
        initial_alphabet=sorted(byte_level.alphabet()),
        show_progress=False,
    )
    readable = (text.decode("utf-8", errors="replace") for text in texts)
    tokenizer.train_from_iterator(readable, trainer)
    return SubwordTokenizer(BPE, tokenizer.to_str(pretty=True).encode(), END_TOKEN)


def open_tokenizer(name: str, end_token: str | None = None) -> Tokenizer:
    """Return `bytes`, or the tokenizer of a tokenizer.json: its name is the file's own.

    Raises:
        DataError: there is no such file, or it is none.
        BuildError: the library is not installed.
    """
    if name == BYTES:
        return BytesTokenizer()
    try:
        content = Path(name).read_bytes()
    except OSError as problem:
        hint = did_you_mean(name, (BYTES, BPE))
        raise DataError(
            f"--tokenizer: cannot be read: {problem.strerror}, got {show(name)!r}; expected "
            f"{BYTES}, {BPE} or a tokenizers file (tokenizer.json).{hint}"
        ) from problem
    return SubwordTokenizer(Path(name).name, content, end_token)


def tokenizer_of(folder: Path, index: DataIndex) -> Tokenizer:
    """Return the tokenizer that made a prepared folder's tokens.

    Raises:
        DataError: its file is missing or damaged.
        BuildError: the library is not installed.
    """
    if index.tokenizer_file is None:
        return open_tokenizer(index.tokenizer)
    path = folder / index.tokenizer_file.file
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise DataError(f"{show(str(path))}: cannot be read: {problem.strerror}.") from problem
    return SubwordTokenizer(index.tokenizer, content, index.end_token)


def smallest_dtype(vocab_size: int) -> str:
    """Return the smallest numpy type that holds every token.

    >>> smallest_dtype(256), smallest_dtype(50257), smallest_dtype(128256)
    ('uint8', 'uint16', 'uint32')
    """
    return "uint8" if vocab_size <= 1 << 8 else "uint16" if vocab_size <= 1 << 16 else "uint32"


def import_tokenizers():
    """Return Hugging Face's library, imported late: only subwords need it.

    Raises:
        BuildError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError as problem:
        raise BuildError(
            f"tokenizers: cannot be imported: {problem}. Run: pip install 'hpctrain[train]', or "
            f"give --tokenizer {BYTES}, which needs no library."
        ) from problem
    return tokenizers
