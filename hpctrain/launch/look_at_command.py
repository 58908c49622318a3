"""What can be seen of a COMMAND before it is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from hpctrain.errors import did_you_mean
from hpctrain.launch.environment import plan_path


def check_program(program: tuple[str, ...], environ: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a command that can be seen before it is started."""
    import shutil

    planned = plan_path(environ, sys.executable)
    search_path = planned.value if planned else environ.get("PATH", os.defpath)
    first = program[0]
    if shutil.which(first, path=search_path) is None:
        return [
            f"COMMAND: cannot be run, got '{first}'; expected a program. {_program_hint(first)}"
        ]
    script = _python_script(program)
    if script is not None and not Path(script).is_file():
        folder = Path(script).parent
        beside = [path.name for path in folder.glob("*.py")] if folder.is_dir() else []
        near = did_you_mean(Path(script).name, beside)
        expected = f"expected a file below {Path.cwd()}"
        return [f"COMMAND: no such script, got '{script}'; {expected}.{near}"]
    return []


def warn_of_stdin() -> list[str]:
    """Say that what is piped to hpctrain reaches no rank."""
    import select
    import stat

    try:
        kind = os.fstat(0).st_mode
        piped = stat.S_ISFIFO(kind) or (stat.S_ISREG(kind) and os.fstat(0).st_size > 0)
        waiting = piped and bool(select.select([0], [], [], 0)[0]) and not _is_at_end(0, kind)
    except (OSError, ValueError):
        return []
    return ["standard input reaches no rank: ranks get /dev/null."] if waiting else []


def _is_at_end(descriptor: int, kind: int) -> bool:
    """Return whether a pipe that can be read holds nothing but its end."""
    import fcntl
    import stat
    import termios

    if not stat.S_ISFIFO(kind):
        return False
    held = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0")
    return int.from_bytes(held, sys.byteorder) == 0


def _program_hint(first: str) -> str:
    if Path(first).is_file():
        if os.access(first, os.X_OK):
            return f"It is in this folder, which is not on PATH: ./{first}"
        return f"Make it executable (chmod +x {first}), or run it by: python {first}"
    beside = [path.name for path in Path(first).parent.glob("*")] if os.sep in first else []
    return f"Is it installed and on PATH?{did_you_mean(Path(first).name, beside)}"


def _python_script(program: tuple[str, ...]) -> str | None:
    """Return the script that a python command names, None for another command.

    >>> _python_script(("python", "-u", "-X", "dev", "train.py", "x.py"))
    'train.py'
    >>> _python_script(("python", "-m", "train.py")) is None
    True
    """
    if not Path(program[0]).name.startswith("python"):
        return None
    words = iter(program[1:])
    for word in words:
        if word in ("-m", "-c", "-"):
            return None
        if word in ("-X", "-W"):
            next(words, None)
        elif not word.startswith("-"):
            return word if word.endswith(".py") else None
    return None
