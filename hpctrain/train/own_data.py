"""Samples from a source of the user's own: `data.factory = "my_module:build"`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from hpctrain.errors import ConfigError
from hpctrain.train.mixture import Mixture
from hpctrain.train.own_model import call_function
from hpctrain.train.presets import ModelSize, fits_vocabulary
from hpctrain.train.shards import TRAIN, VALIDATION

SETTING = "data.factory"
_ADVICE = "See examples/own_data.py."


class OwnSamples:
    """What the user's function returned for one split, its answers checked."""

    def __init__(self, where: str, split: str, source: Any, seq_len: int) -> None:
        """
        Raises:
            ConfigError: it has no length, no `read`, or no `vocab_size`.
        """
        self._where, self.seq_len, self._source = f"{where} ({split})", seq_len, source
        missing = [name for name in ("__len__", "read", "vocab_size") if not hasattr(source, name)]
        if missing:
            raise ConfigError(
                f"{SETTING}: {self._where} returned {type(source).__name__} without "
                f"{', '.join(missing)}; expected an object with a length, "
                f"read(samples) and vocab_size. {_ADVICE}"
            )
        if not isinstance(source.vocab_size, (int, np.integer)):
            raise ConfigError(
                f"{SETTING}: {self._where} has no number for a vocab_size, got "
                f"{source.vocab_size!r}; expected how many tokens there are. {_ADVICE}"
            )
        self.vocab_size = int(source.vocab_size)
        self.tokenizer = str(getattr(source, "tokenizer", ""))

    def __len__(self) -> int:
        return len(self._source)

    def read(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) int64 → (samples, seq_len + 1) int64

        Raises:
            ConfigError: the source answers with another shape, or with something else than
                tokens of its vocabulary.
        """
        rows = np.asarray(self._source.read(samples))
        expected = (len(samples), self.seq_len + 1)
        if rows.shape != expected or not np.issubdtype(rows.dtype, np.integer):
            raise ConfigError(
                f"{SETTING}: {self._where} read {len(samples)} samples as an array {rows.shape} of "
                f"{rows.dtype}; expected whole numbers, {expected}: model.seq_len + 1 tokens each. "
                f"{_ADVICE}"
            )
        if rows.size and not 0 <= rows.min() <= rows.max() < self.vocab_size:
            raise ConfigError(
                f"{SETTING}: {self._where} read tokens outside its vocabulary, got {rows.min()} to "
                f"{rows.max()}; expected 0 to {self.vocab_size - 1} (vocab_size - 1)."
            )
        return rows.astype(np.int64, copy=False)


class OwnData:
    """A source of the user's own where prepared folders could stand."""

    tokenizer_content = None
    end_token = None

    def __init__(self, where: str, seq_len: int) -> None:
        """Open both splits.

        Args:
            where: ``module:function``; the function takes `split` (``train`` or ``validation``)
                and `seq_len`, and returns an object with a length, `vocab_size`, and
                ``read(samples)``: (n,) int64 → (n, seq_len + 1) tokens, always the same for a
                sample, whatever the rank. None for no validation. It may say in `tokenizer` what
                spells its tokens.

        Raises:
            ConfigError: there is no such function, or it returns something else.
        """
        self.description = where
        self._splits: dict[str, OwnSamples] = {}
        for split in (TRAIN, VALIDATION):
            source = call_function(SETTING, where, split=split, seq_len=seq_len)
            if source is not None or split == TRAIN:
                self._splits[split] = OwnSamples(where, split, source, seq_len)
        self.tokenizer = self._splits[TRAIN].tokenizer or where
        self._edges = {split: _read_edges(samples) for split, samples in self._splits.items()}

    @property
    def training_tokens(self) -> int:
        """Tokens that are an input once an epoch."""
        return len(self._splits[TRAIN]) * self._splits[TRAIN].seq_len

    @property
    def digest(self) -> str:
        """What the data is, as far as lengths and a few samples of each split tell."""
        text = repr([self.description, [(s, len(v)) for s, v in self._splits.items()]])
        parts = [edges.tobytes() for edges in self._edges.values()]
        return hashlib.sha256(b"".join([text.encode(), *parts])).hexdigest()[:16]

    def samples(self, split: str, seq_len: int) -> Mixture:
        """Return the split's samples."""
        return Mixture([self._splits.get(split) or _Nothing(seq_len)])

    def problems(self, size: ModelSize, tokenizer: str | None) -> list[str]:
        """Return why a model of `size` cannot train on it."""
        problems = []
        for split, samples in self._splits.items():
            where = f"{SETTING}: {self.description} ({split})"
            if split == TRAIN and not len(samples):
                problems.append(f"{where} has no samples, got a length of 0; expected some.")
            if not fits_vocabulary(samples.vocab_size, size.vocab_size):
                problems.append(
                    f"{where}: its tokens do not fit the model, got vocab_size "
                    f"{samples.vocab_size}; expected model.vocab_size = {size.vocab_size}. Set "
                    f"model.vocab_size={samples.vocab_size}."
                )
        if tokenizer not in (None, self.tokenizer):
            problems.append(
                f"{SETTING}: {self.description} has tokens of {self.tokenizer!r}; expected "
                f"data.tokenizer = {tokenizer!r}."
            )
        return problems


class _Nothing:
    """A split without samples."""

    def __init__(self, seq_len: int) -> None:
        self.seq_len = seq_len

    def __len__(self) -> int:
        return 0

    def read(self, samples: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.empty((len(samples), self.seq_len + 1), dtype=np.int64)


def _read_edges(samples: OwnSamples) -> np.ndarray:
    """Return the first, the middle and the last sample."""
    last = len(samples) - 1
    if last < 0:
        return np.empty((0, samples.seq_len + 1), dtype=np.int64)
    return samples.read(np.unique(np.array([0, last // 2, last], dtype=np.int64)))
