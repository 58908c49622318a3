"""What must a machine have before an environment can be set up?"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OLDEST_PYTHON = (3, 10)


@dataclass(frozen=True)
class Missing:
    """Something absent, the Debian package that brings it, and whether only Horovod needs it."""

    what: str
    package: str
    only_horovod: bool


def find_missing(
    version: tuple[int, int] = (sys.version_info[0], sys.version_info[1]),
    has_module: Callable[[str], bool] = lambda name: importlib.util.find_spec(name) is not None,
    has_program: Callable[[str], bool] = lambda name: shutil.which(name) is not None,
    include: str = sysconfig.get_path("include"),
) -> list[Missing]:
    """Return everything that is missing, so that one command can bring it all."""
    missing = []
    python = f"python{version[0]}.{version[1]}"
    if version < OLDEST_PYTHON:
        found = ".".join(map(str, version))
        missing.append(Missing(f"Python 3.10 or newer (this is {found})", "python3", False))
    if not (has_module("venv") and has_module("ensurepip")):
        missing.append(Missing("venv and ensurepip", f"{python}-venv", False))
    if not Path(include, "Python.h").is_file():
        missing.append(Missing("Python.h", f"{python}-dev", True))
    missing += [Missing(name, name, True) for name in ("g++", "make") if not has_program(name)]
    return missing


def describe(missing: list[Missing]) -> str:
    """Return one message about all that is missing, with the one command that brings it."""
    names = ", ".join(item.what for item in missing)
    packages = " ".join(item.package for item in missing)
    return (
        f"this machine lacks: {names}\n"
        f"    sudo apt-get install -y {packages}\n"
        "Other systems: the packages of the same purpose; another Python: make setup PYTHON=…"
    )
