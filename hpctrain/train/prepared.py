"""The folders that a run reads, opened and found to belong together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from hpctrain.config.schema import DataConfig
from hpctrain.errors import DataError, HpctrainError, raise_all
from hpctrain.train.mixture import Mixture, whole_weights
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
