"""How text becomes tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from hpctrain.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import numpy as np


class Tokenizer(Protocol):
    """What `prepare` needs to know about a tokenizer."""

    name: str
    vocab_size: int
    dtype: str
    """Smallest numpy type that holds every token."""
    separator: int
    """Token that ends each document; no text becomes this token."""

    def encode(self, text: bytes) -> np.ndarray:
        """Return the tokens of `text`, (tokens,) of `dtype`, without a separator."""
        ...


class BytesTokenizer:
    """Each byte is its own token: any file will do, UTF-8 or not.

    Byte 0 is reserved as the document separator, for text does not contain it; where a file
    does, `encode` leaves it out.
    """

    name = "bytes"
    vocab_size = 256
    dtype = "uint8"
    separator = 0

    def encode(self, text: bytes) -> np.ndarray:
        import numpy as np

        return np.frombuffer(text.replace(b"\0", b""), dtype=np.uint8)


TOKENIZERS: dict[str, type[Tokenizer]] = {"bytes": BytesTokenizer}


def open_tokenizer(name: str) -> Tokenizer:
    """Return the tokenizer called `name`.

    Raises:
        DataError: there is none of that name.
    """
    if name not in TOKENIZERS:
        known = ", ".join(TOKENIZERS)
        hint = did_you_mean(name, TOKENIZERS)
        raise DataError(f"tokenizer: unknown, got {name!r}; expected one of {known}.{hint}")
    return TOKENIZERS[name]()
