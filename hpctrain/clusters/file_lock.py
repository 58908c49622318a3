"""A lock that is a file: one process holds it at a time, and it ends with that process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path


def hold_file(path: Path, patience_s: float) -> int | None:
    """Return a descriptor that holds a lock; None where another process holds it for longer.

    The file and the folder that it lies in are made where they are missing.

    Raises:
        OSError: they cannot be made.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        path.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # another process has just removed the folder
        # Of a file that was removed meanwhile the lock is worth nothing.
        if take(lock) and is_still_there(lock, path):
            return lock
        os.close(lock)
        if time.monotonic() > deadline_s:
            return None
        time.sleep(0.02)


def take(lock: int) -> bool:
    """Lock an open file, unless another process has."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_still_there(lock: int, path: Path) -> bool:
    """Return whether `path` is the file that is open: another may have taken its place."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock), os.stat(path))
    return False


def remove_held_file(lock: int, path: Path) -> None:
    """Remove a lock's file and its folder, if that holds nothing else; close it afterwards.

    While it is held: once it is not, both may be the next process's.
    """
    if is_still_there(lock, path):
        path.unlink()
        with contextlib.suppress(OSError):
            path.parent.rmdir()
