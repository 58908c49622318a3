"""Files that a run appends to. What a full disk does not take waits in memory for room."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

EVENTS_FILE = "events.jsonl"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# Of the run's events, and of all other files together: output of ranks must not push events out.
MAX_WAITING_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20


class AppendFiles:
    """The files of one folder that this process appends to.

    Args:
        warn: told once that the disk is full, and at the end what is missing for it.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._folder = folder
        self._warn = warn
        self._files: dict[str, IO[bytes]] = {}
        self._waiting: dict[str, bytearray] = {}
        self._lost_bytes = 0
        self._was_full = False

    def append(self, name: str, data: bytes) -> None:
        """Append lines, or a piece of a log, after all that came before.

        Raises:
            OSError: it cannot be written for another reason than a full disk.
        """
        if not self._waiting:
            written = self._write(name, data)
            if written < len(data):
                self._waiting[name] = bytearray(data[written:])
        elif self._has_place_for(name, len(data)):
            self._waiting.setdefault(name, bytearray()).extend(data)
            self._write_waiting()
        else:
            self._lost_bytes += len(data)
            self._write_waiting()

    def close(self) -> None:
        """Write what still waits, as far as there is room, and close all."""
        try:
            self._write_waiting()
            missing = self._lost_bytes + sum(map(len, self._waiting.values()))
            if missing:
                self._warn(f"{self._folder}: {missing} bytes of events and logs are missing")
        finally:
            for file in self._files.values():
                file.close()

    def note_full(self, problem: OSError) -> None:
        """Warn of a full disk, once.

        Raises:
            OSError: the problem itself, where it is another one.
        """
        if problem.errno not in FULL:
            raise problem
        if not self._was_full:
            self._was_full = True
            self._warn(
                f"{self._folder}: {problem.strerror}: events and logs wait in memory for room "
                f"(at most {2 * MAX_WAITING_BYTES >> 20} MiB), the run goes on"
            )

    def _has_place_for(self, name: str, size_bytes: int) -> bool:
        is_events = name == EVENTS_FILE
        waiting = sum(len(d) for n, d in self._waiting.items() if (n == EVENTS_FILE) == is_events)
        return waiting + size_bytes <= MAX_WAITING_BYTES

    def _write_waiting(self) -> None:
        for name in sorted(self._waiting, key=lambda name: name != EVENTS_FILE):
            data = self._waiting[name]
            del data[: self._write(name, data)]
            if data:
                return
            del self._waiting[name]

    def _write(self, name: str, data: bytes | bytearray) -> int:
        """Return how many bytes the disk has taken."""
        written = 0
        try:
            file = self._open(name)
            while written < len(data):
                written += file.write(data[written : written + _CHUNK_BYTES])
        except OSError as problem:
            self.note_full(problem)
        return written

    def _open(self, name: str) -> IO[bytes]:
        file = self._files.get(name)
        if file is None:
            # Unbuffered: whoever watches the run sees each line at once, and a crash loses none.
            file = open(self._folder / name, "a+b", buffering=0)  # noqa: SIM115 (closed in close)
            try:
                if name.endswith(".jsonl") and _ends_in_half_a_line(file):
                    file.write(b"\n")  # left by a crash: the next event must not be glued to it
            except OSError:
                file.close()
                raise
            self._files[name] = file
        return file


def _ends_in_half_a_line(file: IO[bytes]) -> bool:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return False
    file.seek(size - 1)
    return file.read(1) != b"\n"
