"""Names that libraries are known to read; a name beside them is a mistake or an invention. Pure.

`known_names.toml` holds the lists with their sources. Of libraries without a list here (UCX,
libfabric, MPI's thousand parameters) no name is called unknown.
"""

from __future__ import annotations

import functools
import sys
from importlib import resources
from typing import Any

from hpctrain.errors import did_you_mean
from hpctrain.launch.environment import UNREAD_VARIABLES

FILE = "known_names.toml"
LIBRARIES = {"NCCL_": "NCCL", "HOROVOD_": "Horovod"}


@functools.cache
def _tables() -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(resources.files("hpctrain.variables").joinpath(FILE).read_text("utf-8"))


@functools.cache
def known_names() -> dict[str, frozenset[str]]:
    """Return prefix → the names that begin with it and are read."""
    return {
        entry["prefix"]: frozenset(entry["prefix"] + name for name in entry["names"].split())
        for entry in _tables()["list"]
    }


def open_families() -> tuple[str, ...]:
    """Return beginnings of names that belong to plug-ins, whose names are not listed."""
    return tuple(_tables()["families"])


def why_unknown(name: str) -> str:
    """Return why nothing reads a variable; "" where something does or nobody can say.

    >>> why_unknown("NCCL_DEBUG"), why_unknown("UCX_ANYTHING")
    ('', '')
    >>> why_unknown("NCCL_DEBGU")
    "NCCL reads no such variable. Did you mean 'NCCL_DEBUG'?"
    """
    if name in UNREAD_VARIABLES:
        return UNREAD_VARIABLES[name]
    for prefix, names in known_names().items():
        if not name.startswith(prefix):
            continue
        if name in names or name.startswith(open_families()):
            return ""
        library = LIBRARIES[prefix]
        return f"{library} reads no such variable.{did_you_mean(name, names)}"
    return ""
