"""Which Python program does a COMMAND run? Pure but for looking at the first line of a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SHEBANG_BYTES = 256
_TAKES_A_VALUE = "XW"
_NOT_FOR_LOOKING = "iduvVhqx?"  # say more, or do something else than to run


class PythonProgram(NamedTuple):
    """A program in Python.

    Args:
        python: the interpreter.
        flags: its options that decide where modules are found.
        request: "script", "module" or "code", for scan_imports.py.
        name: what it is called in a message.
    """

    python: str
    flags: tuple[str, ...]
    request: dict[str, Any]
    name: str


def parse_python_words(words: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the options and the program of a Python command line, without the interpreter.

    >>> parse_python_words(["-u", "-X", "dev", "train.py", "--lr", "1"])
    (('-X', 'dev'), {'script': 'train.py'})
    >>> parse_python_words(["-um", "pkg.train", "-c"])
    ((), {'module': 'pkg.train'})
    >>> parse_python_words(["-P"])
    (('-P',), {})
    """
    flags: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            return tuple(flags), {} if word == "-" else {"script": word}
        if word.startswith("--"):
            flags.append(word)
            continue
        for place, letter in enumerate(word[1:], start=2):
            value = word[place:]
            if letter in "mc" or letter in _TAKES_A_VALUE:
                value = value or (rest.pop(0) if rest else "")
                if letter in _TAKES_A_VALUE:
                    flags += [f"-{letter}", value]
                    break
                return tuple(flags), {"module" if letter == "m" else "code": value}
            if letter not in _NOT_FOR_LOOKING:
                flags.append(f"-{letter}")
    return tuple(flags), {}


def find_python_program(words: Sequence[str], environ: Mapping[str, str]) -> PythonProgram | str:
    """Return the Python program that a COMMAND runs, or why none can be seen.

    Args:
        environ: where its first word is looked for.
    """
    found = shutil.which(words[0], path=environ.get("PATH", os.defpath))
    if found is None:
        return f"{words[0]} is no program on PATH there"
    if _is_python(found) or _is_python(words[0]):
        return _make(found, words[1:])
    try:
        with open(found, "rb") as stream:
            first = stream.read(SHEBANG_BYTES).partition(b"\n")[0].decode("utf-8", "replace")
    except OSError as problem:
        return f"{found} cannot be read: {problem.strerror}"
    shebang = first[2:].split() if first.startswith("#!") else []
    if shebang and Path(shebang[0]).name == "env":
        shebang = [word for word in shebang[1:] if word != "-S"]
    if not shebang or not _is_python(shebang[0]):
        return f"{words[0]} is no Python program; what it imports is not seen"
    python = shutil.which(shebang[0], path=environ.get("PATH", os.defpath))
    if python is None:
        return f"{found} wants {shebang[0]}, which is not there"
    return _make(python, [*shebang[1:], found])


def _make(python: str, words: Sequence[str]) -> PythonProgram | str:
    flags, request = parse_python_words(words)
    if not request:
        return "it reads its program from standard input"
    kind, what = next(iter(request.items()))
    name = {"script": what, "module": f"-m {what}", "code": "-c"}[kind]
    return PythonProgram(python, flags, request, name)


def _is_python(path: str) -> bool:
    return Path(path).name.startswith(("python", "pypy"))
