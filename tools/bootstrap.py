"""Set up .venv: pinned packages, torch, an MPI, hpctrain and a Horovod built for all of them.

Runs with any Python ≥ 3.10 and nothing installed. A step that was done with the same inputs is
not done again, so an interrupted set-up goes on where it stopped.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".cache" / "setup"
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from prerequisites import describe, find_missing  # noqa: E402
from progress import Progress, StepFailed  # noqa: E402


def main() -> int:
    """Bring .venv up to date; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--test", action="store_true", help="also install what the tests need")
    parser.add_argument(
        "--any-python", action="store_true", help="make .venv anew where this Python is another"
    )
    options = parser.parse_args()
    if not options.any_python:
        go_on_with_the_environments_python()
    missing = find_missing()
    if any(not item.only_horovod for item in missing):
        print(f"set-up: {describe(missing)}", file=sys.stderr)
        return 1
    note = describe(missing) if missing else ""
    if not missing and any(character.isspace() for character in str(ROOT)):
        note = f"Horovod's CMake files cannot build in a path with spaces, got {ROOT}."
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two targets of one `make -j` share the environment
        return bring_up_to_date(options.test, without_horovod=bool(note), note=note)


def go_on_with_the_environments_python() -> None:
    """Start again under the Python that .venv was made with, where this is another.

    Another python3 on PATH (a login shell's, pyenv's) is no reason to remove what people
    installed into .venv, or what runs from it.
    """
    try:
        lines = (ROOT / ".venv" / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    settings = dict(line.split(" = ", 1) for line in lines if " = " in line)
    minor = ".".join(settings.get("version", "").split(".")[:2])
    for python in (settings.get("executable"), f"{settings.get('home')}/python{minor}"):
        if python and os.access(python, os.X_OK):
            if os.path.realpath(python) != os.path.realpath(sys.executable):
                os.execv(python, [python, *sys.argv])
            return
    print("set-up: the Python that .venv was made with is gone: making it anew", file=sys.stderr)


def bring_up_to_date(test: bool, without_horovod: bool, note: str) -> int:
    """Run the steps that are not done yet and remember each; return the exit code."""
    from setup_steps import is_done, plan_steps, remember  # needs the Python just checked

    todo = [step for step in plan_steps(test) if not is_done(step)]
    if without_horovod and any(step.name == "horovod" for step in todo):
        todo = [step for step in todo if step.name != "horovod"]
        print(f"set-up: goes on without Horovod, {note}", file=sys.stderr)
    if not todo:
        print("set-up: .venv is up to date")
        return 0
    progress = Progress(len(todo), LOGS)
    for step in todo:
        try:
            with progress.step(step.name, step.what):
                step.act(progress)
        except StepFailed as failed:
            print(f"\nset-up: {failed}", file=sys.stderr)
            if step.name != "horovod":
                return 1
            print("Everything but the horovod communicator works without it.", file=sys.stderr)
            return 0
        remember(step)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nset-up: stopped; the next call goes on from here.", file=sys.stderr)
        sys.exit(130)
