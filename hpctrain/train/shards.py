"""Prepared data on disk: `index.json` and the token shards that it names.

A shard is nothing but tokens, one after the other, so reading is a memory map and no parsing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpctrain.errors import DataError, raise_all
from hpctrain.train.sources import show

if TYPE_CHECKING:
    import numpy as np

INDEX_NAME = "index.json"
SCHEMA = 1
TRAIN, VALIDATION = "train", "validation"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One file of tokens."""

    file: str
    tokens: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerFile:
    """The tokenizer that made the tokens, kept with them."""

    file: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """The training or the validation part."""

    tokens: int
    documents: int
    shards: tuple[Shard, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataIndex:
    """The content of `index.json`."""

    schema: Literal[1]
    tokenizer: str
    vocab_size: int
    dtype: Literal["uint8", "uint16", "uint32"]
    separator: int
    splits: dict[Literal["train", "validation"], Split]
    tokenizer_file: TokenizerFile | None = None
    """None where the tokenizer needs none."""
    end_token: str | None = None
    """The separator's name in the tokenizer's file, where it was asked for by name."""
    source: dict[str, Any] = field(default_factory=dict)
    """What it was made of, for people."""
    request: dict[str, Any] = field(default_factory=dict)
    """What was asked for: the same request need not be carried out twice."""
    created: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """What the tokens are, in 16 hexadecimal digits: equal data, equal digest."""
        parts = [shard.sha256 for name in (TRAIN, VALIDATION) for shard in self.splits[name].shards]
        return hashlib.sha256(" ".join([self.dtype, *parts]).encode()).hexdigest()[:16]


def read_index(folder: Path) -> DataIndex:
    """Read a prepared folder's index.

    Raises:
        DataError: the folder holds no prepared data, or its index is damaged.
    """
    import msgspec

    path = folder / INDEX_NAME
    where = show(str(path))
    again = f"Make it again with: hpctrain data prepare --source … --out {show(str(folder))}"
    try:
        index = msgspec.json.decode(path.read_bytes(), type=DataIndex)
    except FileNotFoundError:
        raise DataError(
            f"data.path: holds no prepared data, got {show(str(folder))}; "
            f"expected a folder with {INDEX_NAME}. {_near_folders(folder)}"
            f"Make it with: hpctrain data prepare --source FILES --out {show(str(folder))} "
            "(--source stdlib for Python's own library)"
        ) from None
    except OSError as problem:
        raise DataError(f"{where}: cannot be read: {problem.strerror}.") from problem
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise DataError(f"{where}: damaged index: {problem}. {again} --force") from problem
    missing = [name for name in (TRAIN, VALIDATION) if name not in index.splits]
    names = [file.file for file in _files(index)]
    outside = [name for name in names if Path(name).name != name]
    if missing or outside:
        reason = f"no split {missing[0]!r}" if missing else f"file outside, got {outside[0]!r}"
        raise DataError(f"{where}: damaged index: {reason}. {again} --force")
    return index


def _near_folders(folder: Path) -> str:
    """Name prepared folders in or beside a folder that is none."""
    near = [path.parent for path in (*folder.glob(f"*/{INDEX_NAME}"),
                                     *folder.parent.glob(f"*/{INDEX_NAME}"))]  # fmt: skip
    names = ", ".join(show(str(path)) for path in sorted(set(near))[:4])
    return f"Prepared are: {names}. " if names else ""


def find_damage(folder: Path, index: DataIndex, *, checksums: bool = False) -> list[str]:
    """Return what is wrong with the files, one message each; nothing where all is well.

    Args:
        checksums: also read every byte and compare its sha256, not the sizes alone.
    """
    problems = []
    for shard in _files(index):
        path = folder / shard.file
        try:
            size_bytes = path.stat().st_size
            if size_bytes != shard.size_bytes:
                problems.append(
                    f"{show(str(path))}: damaged, got {size_bytes} bytes; "
                    f"expected {shard.size_bytes}."
                )
            elif checksums and (sha256 := _sha256(path)) != shard.sha256:
                problems.append(
                    f"{show(str(path))}: damaged, got sha256 {sha256[:16]}…; "
                    f"expected {shard.sha256[:16]}…"
                )
        except OSError as problem:
            problems.append(f"{show(str(path))}: cannot be read: {problem.strerror}.")
    return problems


def open_data(folder: Path) -> DataIndex:
    """Read the index and prove that every shard is there in full.

    Raises:
        DataError: naming every shard that is missing or has another size.
    """
    index = read_index(folder)
    problems = find_damage(folder, index)
    out = f"--out {show(str(folder))} --force"
    remedy = f"Make it again from the same text: hpctrain data prepare --source … {out}"
    raise_all(DataError, [f"{problem} {remedy}" for problem in problems])
    return index


class Windows:
    """A split as windows of `seq_len` + 1 tokens, read through memory maps.

    Window i's targets are its inputs one token later, so windows start `seq_len` tokens apart
    and each token is an input once. No window runs over a shard's end.
    """

    def __init__(self, folder: Path, index: DataIndex, split: str, seq_len: int) -> None:
        import numpy as np

        self.seq_len = seq_len
        self._folder = folder
        self._dtype = np.dtype(index.dtype).newbyteorder("<")
        self._shards = index.splits[split].shards
        self._counts = [max(shard.tokens - 1, 0) // seq_len for shard in self._shards]
        self._ends = np.cumsum(self._counts, dtype=np.int64)
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, samples: np.ndarray) -> np.ndarray:
        """Return the windows of the given numbers: (samples,) → (samples, seq_len + 1) int64."""
        import numpy as np

        if len(self._shards) == 1:
            return self._map(0)[samples].astype(np.int64)
        tokens = np.empty((len(samples), self.seq_len + 1), dtype=np.int64)
        shards = np.searchsorted(self._ends, samples, side="right")
        for shard in np.unique(shards).tolist():
            here = shards == shard
            first = self._ends[shard] - self._counts[shard]
            tokens[here] = self._map(shard)[samples[here] - first]
        return tokens

    def _map(self, shard: int) -> np.ndarray:
        """Return a shard's windows, (windows, seq_len + 1), as a view into its memory map."""
        import numpy as np

        if shard not in self._maps:
            path = self._folder / self._shards[shard].file
            # A plain array, for a memmap checks at each access what it is.
            tokens = np.asarray(np.memmap(path, dtype=self._dtype, mode="r"))
            self._maps[shard] = np.lib.stride_tricks.as_strided(
                tokens,
                (self._counts[shard], self.seq_len + 1),
                (self.seq_len * tokens.itemsize, tokens.itemsize),
                writeable=False,
            )
        return self._maps[shard]


def _files(index: DataIndex) -> list[Shard | TokenizerFile]:
    shards = [shard for split in index.splits.values() for shard in split.shards]
    return shards if index.tokenizer_file is None else [*shards, index.tokenizer_file]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
