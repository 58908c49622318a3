"""Parse a program on this host, and import the packages that it would import."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpctrain.executor import Command, Executor, LocalExecutor
from hpctrain.launch.prepare import SAFE_PATH
from hpctrain.preflight.program import PythonProgram, find_python_program
from hpctrain.preflight.scan_imports import MARK
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.try_imports import BEGIN, END

TIMEOUT_S = 150.0  # importing torch from a cold network disk takes a minute and more
SCAN_TIMEOUT_S = 45.0
MAX_CRASHES = 10
_FOLDER = Path(__file__).parent


def look_at_imports(task: NodeTask) -> dict[str, Any]:
    """Return what the program of a task would import here, and what of it fails."""
    program: PythonProgram | str
    if task.program:
        program = find_python_program(task.program, os.environ)
    else:
        program = _own_functions(task.config)
    if isinstance(program, str):
        return {"skipped": program}
    return scan_and_try(program, LocalExecutor(), time.monotonic() + TIMEOUT_S - 5)


def _own_functions(config: Mapping[str, Any]) -> PythonProgram | str:
    """Return what hpctrain's trainer is told to import: factories of the user's own."""
    given = {
        f"{section}.factory": config.get(section, {}).get("factory")
        for section in ("model", "data")
    }
    functions = {setting: place for setting, place in given.items() if place}
    if not functions:
        return "hpctrain's own trainer, without a model or data of your own"
    request = {"functions": functions, "from_cwd": True}
    return PythonProgram(sys.executable, SAFE_PATH, request, ", ".join(functions.values()))


def scan_and_try(program: PythonProgram, executor: Executor, until_s: float) -> dict[str, Any]:
    """Parse the program and import its packages, until a moment on the clock of time.monotonic."""
    script = str(_FOLDER / "scan_imports.py")
    done = executor.run(
        Command((program.python, *program.flags, script)),
        timeout_s=SCAN_TIMEOUT_S, stdin=json.dumps(program.request),
    )  # fmt: skip
    _, mark, rest = done.stdout.partition(MARK)
    if not mark:
        raise RuntimeError(f"{program.python} could not parse the program: {done.last_words}")
    found = json.loads(rest.partition("\n")[0])
    wanted = [(name, list(taken)) for name, taken in found["packages"].items()]
    broken = try_packages(program, found["path"], wanted, executor, until_s)
    problems = list(found["problems"])
    for name, wrong in broken.items():
        for taken, detail in wrong.items():
            file, line, sure = found["packages"][name][taken]
            kind = "taken" if taken else "package"
            problems.append({"file": file, "line": line, "kind": kind, "name": name,
                             "sure": sure, "detail": detail, "near": ""})  # fmt: skip
    here = os.getcwd()
    return {
        "name": program.name,
        "problems": [{**p, "file": shorten(p["file"], here)} for p in problems],
        "packages": sorted({name.partition(".")[0] for name in found["packages"]}),
        "files": {shorten(path, here): digest for path, digest in found["files"].items()},
    }


def try_packages(
    program: PythonProgram, path: Sequence[str], wanted: Sequence[tuple[str, Sequence[str]]],
    executor: Executor, until_s: float,
) -> dict[str, dict[str, str]]:  # fmt: skip
    """Import packages in a process of their own; return module → name → what went wrong.

    One that takes the process down costs its own answer: the rest is tried again without it.
    """
    broken: dict[str, dict[str, str]] = {}
    rest = list(wanted)
    for _ in range(MAX_CRASHES):
        left_s = until_s - time.monotonic()
        if not rest or left_s <= 0:
            break
        done = executor.run(
            Command((program.python, *program.flags, str(_FOLDER / "try_imports.py"))),
            timeout_s=left_s, stdin=json.dumps({"modules": rest, "path": list(path)}),
        )  # fmt: skip
        ended, begun = read_trials(done.stdout)
        broken.update({name: problem for name, problem in ended.items() if problem})
        rest = [entry for entry in rest if entry[0] not in ended]
        if begun is None:
            if rest and not ended:
                raise RuntimeError(f"{program.python} imports nothing: {done.last_words}")
            continue
        ending = "takes too long" if done.returncode == 124 else _words_of(done.returncode)
        broken[begun] = {"": f"importing it {ending}"}
        rest = [entry for entry in rest if entry[0] != begun]
    broken.update({name: {"": "was not reached in time"} for name, _ in rest})
    return broken


def read_trials(text: str) -> tuple[dict[str, dict[str, str]], str | None]:
    """Return module → name → what went wrong, and the module that never ended. Pure."""
    ended: dict[str, dict[str, str]] = {}
    begun = None
    for line in text.splitlines():
        if line.startswith(BEGIN):
            begun = line.removeprefix(BEGIN)
        elif line.startswith(END):
            name, problem = json.loads(line.removeprefix(END))
            ended[name], begun = problem, None
    return ended, begun


def _words_of(code: int) -> str:
    return f"ends the process by signal {-code}" if code < 0 else f"ends it, exit code {code}"


def shorten(path: str, here: str) -> str:
    """Return a path as seen from a folder, where it lies below it.

    >>> shorten("/a/b/train.py", "/a/b"), shorten("/c/x.py", "/a/b"), shorten("-c", "/a")
    ('train.py', '/c/x.py', '-c')
    """
    return path[len(here) + 1 :] if path.startswith(here.rstrip("/") + "/") else path
