"""Which lines of a library's log tell of transports: the rest stays where it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable

MOST_LINES = 400
_TELLING = (
    " via ", "Using network", "NET/", "Pattern ", "NCCL version", "-host:", "host |", "Host ",
    "UCX  INFO", "provider", "mca: bml: Using", "  host ", "Exceptions",
)  # fmt: skip


def telling_lines(lines: Iterable[str]) -> list[str]:
    """Return the lines that a parser may want, each once, at most :data:`MOST_LINES`."""
    wanted = (line.rstrip("\n") for line in lines if any(word in line for word in _TELLING))
    found = dict.fromkeys(wanted)
    return list(found)[:MOST_LINES]
