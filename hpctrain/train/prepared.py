"""The folders that a run reads, opened and found to belong together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from hpctrain.config.schema import DataConfig
from hpctrain.errors import DataError, HpctrainError, raise_all
from hpctrain.train.mixture import Mixture, whole_weights
from hpctrain.train.presets import ModelSize, fits_vocabulary
from hpctrain.train.shards import TRAIN, VALIDATION, DataIndex, Split, Windows, open_data
from hpctrain.train.sources import show


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Prepared folders with their weights; one folder is a mixture of one."""

    names: tuple[str, ...]
    """As the configuration writes them."""
    indexes: tuple[DataIndex, ...]
    weights: tuple[int, ...]

    @property
    def description(self) -> str:
        """What is read, in a few words."""
        if len(self.names) == 1:
            return self.names[0]
        parts = zip(self.names, self.weights, strict=True)
        return " + ".join(
            f"{100 * weight / sum(self.weights):.4g} % {name}" for name, weight in parts
        )

    @property
    def training_tokens(self) -> int:
        """Tokens of the training part."""
        return self.index.splits[TRAIN].tokens

    @property
    def digest(self) -> str:
        """What the tokens are, in 16 hexadecimal digits: equal data, equal digest."""
        return self.index.digest

    @property
    def tokenizer(self) -> str:
        """The name of what made the tokens."""
        return self.index.tokenizer

    @property
    def end_token(self) -> str | None:
        """The separator's name in the tokenizer's file, where it was asked for by name."""
        return self.index.end_token

    @property
    def tokenizer_content(self) -> bytes | None:
        """The tokenizer's file; None where it needs none."""
        file = self.index.tokenizer_file
        return None if file is None else (Path(self.names[0]) / file.file).read_bytes()

    @property
    def index(self) -> DataIndex:
        """One index for all of it: its tokens are their sum, its digest covers every shard."""
        splits = {name: _join([index.splits[name] for index in self.indexes])
                  for name in (TRAIN, VALIDATION)}  # fmt: skip
        return dataclasses.replace(self.indexes[0], splits=splits)

    def samples(self, split: str, seq_len: int) -> Mixture:
        """Return the split's samples, mixed; a source without any of them takes no part."""
        windows = [
            Windows(Path(name), index, split, seq_len)
            for name, index in zip(self.names, self.indexes, strict=True)
        ]
        parts = [(w, weight) for w, weight in zip(windows, self.weights, strict=True) if len(w)]
        parts = parts or [(windows[0], 1)]
        return Mixture(*zip(*parts, strict=True))

    def problems(self, size: ModelSize, tokenizer: str | None) -> list[str]:
        """Return why a model of `size` cannot train on it.

        Args:
            tokenizer: the one that is expected; None for any.
        """
        problems = []
        for where, index in zip(self.names, self.indexes, strict=True):
            if not fits_vocabulary(index.vocab_size, size.vocab_size):
                problems.append(
                    f"{where}: its tokens do not fit the model, got vocab_size {index.vocab_size} "
                    f"({index.tokenizer}); expected model.vocab_size = {size.vocab_size}. Set "
                    f"model.vocab_size={index.vocab_size}, or prepare data with another tokenizer."
                )
            if tokenizer not in (None, index.tokenizer):
                problems.append(
                    f"{where}: made with another tokenizer, got {index.tokenizer!r}; expected "
                    f"data.tokenizer = {tokenizer!r}."
                )
            if len(Windows(Path(where), index, TRAIN, size.seq_len)) == 0:
                problems.append(
                    f"{where}: less than one sequence of training text, got "
                    f"{index.splits[TRAIN].tokens} tokens; expected at least model.seq_len + 1 = "
                    f"{size.seq_len + 1} in a shard. Prepare more text, or set a shorter "
                    "model.seq_len."
                )
        return problems


def open_prepared(config: DataConfig) -> PreparedData:
    """Open the folder of `data.path`, or those of `data.mixture`.

    Raises:
        DataError: folders are missing, damaged, or of different tokenizers.
        ConfigError: the weights cannot be held exactly.
    """
    mixture = config.mixture or {config.path: 1}
    indexes, problems = [], []
    for name in mixture:
        try:
            indexes.append(open_data(Path(name)))
        except HpctrainError as problem:
            problems += problem.messages
    raise_all(DataError, problems)
    names = tuple(mixture)
    for name, index in zip(names, indexes, strict=True):
        if _vocabulary(index) != _vocabulary(indexes[0]):
            problems.append(
                f"{show(name)}: its tokens mean something else than those of {show(names[0])}, got "
                f"{_describe(index)}; expected {_describe(indexes[0])}. Prepare it again with "
                f"--tokenizer {_remedy(names[0], indexes[0])}"
            )
    raise_all(DataError, problems)
    return PreparedData(names, tuple(indexes), whole_weights(mixture))


def _vocabulary(index: DataIndex) -> tuple[object, ...]:
    # Not the name: a learned tokenizer has another one when its file is used again.
    file = index.tokenizer_file
    return index.vocab_size, index.separator, file.sha256 if file else None


def _describe(index: DataIndex) -> str:
    file = index.tokenizer_file
    digest = f", sha256 {file.sha256[:12]}…" if file else ""
    return f"{index.tokenizer} ({index.vocab_size} tokens{digest})"


def _remedy(name: str, index: DataIndex) -> str:
    file = index.tokenizer_file
    return show(str(Path(name) / file.file)) if file else index.tokenizer


def _join(splits: list[Split]) -> Split:
    return Split(
        tokens=sum(split.tokens for split in splits),
        documents=sum(split.documents for split in splits),
        shards=tuple(shard for split in splits for shard in split.shards),
    )
