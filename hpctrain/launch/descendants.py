"""The processes below a rank's shim: find them, signal them."""

from __future__ import annotations

import os
from contextlib import suppress


def signal_group(leader: int, number: int) -> None:
    """Send a signal to a process group; do nothing where it has ended, or is another user's."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def signal_process(pid: int, number: int) -> None:
    """Send a signal to a process; do nothing where it has ended, or is another user's."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def descendants(pid: int) -> list[int]:
    """Return all processes below `pid`, parents first."""
    found: list[int] = []
    queue = [pid]
    while queue:
        parent = queue.pop()
        try:
            with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:
            children = []
        found += children
        queue += children
    return found
