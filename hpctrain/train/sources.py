"""Which files a data set is made of, where documents begin, and which ones validate."""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpctrain.errors import DataError, raise_all

STDLIB = "stdlib"
ENOUGH_DOCUMENTS = 100
TARGET_DOCUMENTS = 200
MIN_PIECE_BYTES = 4 * 1024
MAX_PIECE_BYTES = 1024 * 1024
JSON_LINES = ".jsonl"
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_LONGEST_LINE_BYTES = 64 * 1024
_NOT_THE_STDLIB = {"site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read. `name` is the same on every machine that has the same source."""

    path: str
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Document:
    """A file or a piece of one: bytes [start, end). Of JSON Lines, whole lines: several texts."""

    file: SourceFile
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


def find_sources(sources: Sequence[str]) -> list[SourceFile]:
    """Return the files that `sources` name, in an order that is the same everywhere.

    Args:
        sources: ``stdlib`` (the .py files of the running Python's own library), files, and
            folders (all files below, hidden ones left out). A file of your own that is called
            ``stdlib`` is ``./stdlib``.

    Raises:
        DataError: naming every source that is missing, unreadable or empty.
    """
    files: list[SourceFile] = []
    errors: list[str] = []
    for source in sources:
        found = list(_find_stdlib() if source == STDLIB else _find_files(source, errors))
        if not found and (source == STDLIB or os.path.isdir(source)):
            errors.append(f"{show(source)}: holds no text file. Name files or another folder.")
        files += found
    errors += [
        f"{show(file.path)}: is compressed; expected plain text or {JSON_LINES}. Unpack it first."
        for file in files
        if file.path.endswith(_COMPRESSED)
    ]
    raise_all(DataError, errors)
    if not any(file.size_bytes for file in files):
        names = ", ".join(show(source) for source in sources)
        raise DataError(f"{names}: every file is empty; expected text. Name other files.")
    return files


def cut_documents(files: Sequence[SourceFile]) -> list[Document]:
    """Return the documents of `files`, in order.

    A file is a document. Few files are cut at line ends into about 200 documents, so that a
    single file too has a part to validate on; and a piece is never over 1 MiB, which bounds
    the memory that preparing takes. Only a line of JSON is never cut.
    """
    piece_bytes = MAX_PIECE_BYTES
    if len(files) < ENOUGH_DOCUMENTS:
        total_bytes = sum(file.size_bytes for file in files)
        piece_bytes = min(max(total_bytes // TARGET_DOCUMENTS, MIN_PIECE_BYTES), MAX_PIECE_BYTES)
    documents = []
    for file in files:
        cuts = [0, *_line_ends(file, piece_bytes), file.size_bytes]
        documents += [Document(file, a, b) for a, b in itertools.pairwise(cuts) if b > a]
    return documents


def is_json_lines(path: str) -> bool:
    """Return whether a file holds a JSON object a line."""
    return path.endswith(JSON_LINES)


def choose_validation(documents: Sequence[Document], fraction: float, seed: int) -> frozenset[int]:
    """Return which documents (their places in the list) validate.

    The choice depends on names, pieces and `seed` alone. Documents are drawn in the order of a
    hash while they fit into `fraction` of the bytes; at least one is drawn, never all.
    """
    if fraction == 0 or len(documents) < 2:
        return frozenset()

    def draw(place: int) -> bytes:
        document = documents[place]
        label = f"{seed}:{document.start}:".encode() + os.fsencode(document.file.name)
        return hashlib.sha256(label).digest()

    order = sorted(range(len(documents)), key=draw)
    left_bytes = fraction * sum(document.size_bytes for document in documents)
    chosen = []
    for place in order:
        if documents[place].size_bytes <= left_bytes:
            left_bytes -= documents[place].size_bytes
            chosen.append(place)
    smallest = min(order, key=lambda place: documents[place].size_bytes)
    return frozenset(chosen or [smallest])


def fingerprint(files: Sequence[SourceFile]) -> str:
    """Return a digest of the files' names and sizes: quick, and the same on every machine."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(file.name) + b"\0%d\0" % file.size_bytes)
    return digest.hexdigest()


def show(name: str) -> str:
    """Return a file name that is safe to print, whatever bytes it holds.

    >>> print(show("plain name.txt"), show("two" + chr(10) + "lines"))
    plain name.txt 'two\\nlines'
    """
    return name if name.isprintable() and name else ascii(name)


def _find_stdlib() -> Iterator[SourceFile]:
    root = sysconfig.get_path("stdlib")
    if not os.path.isdir(root):
        version = ".".join(map(str, sys.version_info[:2]))
        raise DataError(
            f"stdlib: Python {version} keeps its library's source elsewhere, got {show(root)}; "
            "expected a folder of .py files. Name text files of your own."
        )
    for file in _walk(root, skip=_NOT_THE_STDLIB):
        if file.name.endswith(".py"):
            yield file


def _find_files(source: str, errors: list[str]) -> Iterator[SourceFile]:
    path = Path(source)
    if path.is_dir():
        yield from _walk(source)
    elif path.is_file() and os.access(path, os.R_OK):
        yield SourceFile(source, path.name, path.stat().st_size)
    else:
        missing = not os.path.lexists(source)
        problem = "no such file" if missing else "cannot be read as a file"
        errors.append(f"{show(source)}: {problem}. Check the path, or use --source stdlib.")


def _walk(root: str, skip: set[str] | None = None) -> Iterator[SourceFile]:
    def stop(problem: OSError) -> None:
        where = show(os.fsdecode(problem.filename))
        raise DataError(f"{where}: cannot be read: {problem.strerror}.") from problem

    for folder, folders, names in os.walk(root, onerror=stop):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in (skip or ()))
        for name in sorted(names):
            path = os.path.join(folder, name)
            # A link to nowhere and a file without read permission are no text.
            if not name.startswith(".") and os.path.isfile(path) and os.access(path, os.R_OK):
                relative = os.path.relpath(path, root).replace(os.sep, "/")
                yield SourceFile(path, relative, os.path.getsize(path))


def _line_ends(file: SourceFile, piece_bytes: int) -> Iterator[int]:
    if file.size_bytes <= piece_bytes:
        return
    longest_bytes = -1 if is_json_lines(file.path) else _LONGEST_LINE_BYTES
    with open(file.path, "rb") as stream:
        position = piece_bytes
        while position < file.size_bytes:
            stream.seek(position - 1)
            stream.readline(longest_bytes)
            position = stream.tell()
            if position < file.size_bytes:
                yield position
            position += piece_bytes
