"""checkov, in an environment of its own: its requirements would pin half of ours."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "tools"
VERSION = "3.3.30"
PIP_TIMEOUT_S = 500


class CheckovMissing(Exception):
    """It cannot be installed here; the message says why."""


def install() -> str:
    """Return the program, installing it into .cache/tools at the first call.

    Raises:
        CheckovMissing: there is no network, or no such wheel for this machine.
    """
    if given := os.environ.get("HPCTRAIN_CHECKOV"):
        if program := shutil.which(given):
            return program
        raise CheckovMissing(f"HPCTRAIN_CHECKOV: no such program, got '{given}'")
    folder = CACHE / f"checkov-{VERSION}"
    program = folder / "bin" / "checkov"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "checkov.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, with_pip=True)
            _pip(folder, f"checkov=={VERSION}")
            (folder / "complete").touch()
    return str(program)


def _pip(folder: Path, requirement: str) -> None:
    words = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--retries", "1"]
    try:
        done = subprocess.run(
            [*words, requirement], capture_output=True, text=True, timeout=PIP_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        raise CheckovMissing(f"pip had not finished after {PIP_TIMEOUT_S} s") from late
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise CheckovMissing(f"`pip install {requirement}`: {words[-1]}")


if __name__ == "__main__":
    print(install(), file=sys.stdout)
