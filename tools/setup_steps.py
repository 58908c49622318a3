"""What does a set-up consist of, and which of its steps are done?"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from progress import Progress
from torch_source import CPU_INDEX, Attempt, has_nvidia_device, plan_torch, probe_index

from hpctrain.executor import LocalExecutor
from hpctrain.horovod_recipe import VERSION as HOROVOD
from hpctrain.horovod_recipe import recipe_hash
from hpctrain.launch.choose_mpi import MpiChoice, choose_mpi
from hpctrain.launch.find_mpi import WHEEL, cache_folder

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
DONE = VENV / "setup-done.json"
CONSTRAINTS = ROOT / "constraints.txt"
PIP = (str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install",
       "--retries", "2", "--prefer-binary")  # fmt: skip
PINNED = (*PIP, "--constraint", str(CONSTRAINTS))
NETWORK_HINT = "Check the network and pip's index (`pip config list`), then call this again."


@dataclass(frozen=True)
class Step:
    """One thing to do; it is done again when `inputs` have changed."""

    name: str
    what: str
    inputs: tuple[str, ...]
    act: Callable[[Progress], None]


def plan_steps(test: bool) -> list[Step]:
    """Return every step of a set-up, with all that its result depends on.

    Args:
        test: also what the tests need.
    """
    choice = choose_mpi(os.environ, LocalExecutor(), VENV)
    pins = CONSTRAINTS.read_text(encoding="utf-8")
    extras = read_requirements()
    python = f"{sys.version} {os.path.realpath(sys.executable)}"
    index_url = os.environ.get("TORCH_INDEX_URL", "")
    torch = pinned("torch", pins)
    attempts = plan_torch(torch, index_url, has_nvidia_device())
    base = (python, str(VENV))
    names = ("", "train", "mpi", "terraform", "report", "build")
    packages = [requirement for name in names for requirement in extras[name]]
    mpi = choice.install
    mpi_what = f"MPI: {mpi.mpirun} ({choice.why})" if mpi else f"MPI: {WHEEL} ({choice.why})"
    version = ".".join(map(str, sys.version_info[:3]))
    steps = [
        Step("venv", f"environment .venv (Python {version})", base, make_venv),
        Step("torch", f"torch {torch} ({attempts[0].what})", (*base, torch, index_url),
             install_torch(torch, attempts)),
        Step("packages", "packages pinned in constraints.txt", (*base, pins, *packages),
             pip_install(*packages)),
        Step("mpi", mpi_what, (*base, choice.name), install_mpi(choice)),
        Step("hpctrain", "hpctrain itself", (*base, read_package()), pip_install(
            "--no-deps", "--no-build-isolation", "--editable", str(ROOT))),
        Step("horovod", f"Horovod {HOROVOD}, built for this torch and MPI",
             (*base, torch, index_url, choice.name, recipe_hash()), install_horovod),
    ]  # fmt: skip
    if test:
        tests = extras["test"]
        steps.insert(5, Step("tests", "test tools", (*base, pins, *tests), pip_install(*tests)))
    return steps


def make_venv(progress: Progress) -> None:
    """Create .venv anew: what half a set-up or another Python left in it is of no use."""
    if VENV.exists():
        shutil.rmtree(VENV)
    progress.run((sys.executable, "-m", "venv", str(VENV)), "Is the disk full?")


def install_torch(version: str, attempts: list[Attempt]) -> Callable[[Progress], None]:
    """Return the step that installs torch from the first source that has it."""

    def act(progress: Progress) -> None:
        code, unreachable = 1, ""
        for number, attempt in enumerate(attempts):
            if CPU_INDEX in attempt.arguments and not probe_index(CPU_INDEX):
                unreachable = f" {CPU_INDEX} did not answer."
                continue
            if number:
                progress.note(f"not there; trying the {attempt.what}")
            # Alone: an index of torch may hold other versions of what torch needs.
            if (code := progress.attempt((*PIP, "--no-deps", *attempt.arguments))) == 0:
                progress.run((*PINNED, "torch"), NETWORK_HINT)
                return
        text = progress.log.read_text(encoding="utf-8", errors="replace")
        hint = NETWORK_HINT + unreachable
        if "No matching distribution found for torch" in text and "broken by" not in text:
            tag = f"Python {sys.version_info[0]}.{sys.version_info[1]} on {os.uname().machine}"
            hint = (
                f"pip's index shows no torch {version} for {tag}. Another Python: "
                "`make setup PYTHON=python3.12`; another index: `make setup TORCH_INDEX_URL=…`."
            )
        raise progress.failure(code, hint)

    return act


def pip_install(*requirements: str) -> Callable[[Progress], None]:
    """Return the step that installs the requirements at the pinned versions."""

    def act(progress: Progress) -> None:
        progress.run((*PINNED, *requirements), NETWORK_HINT)

    return act


def install_mpi(choice: MpiChoice) -> Callable[[Progress], None]:
    """Return the step that says why an MPI of the machine was not taken, and installs the wheel."""

    def act(progress: Progress) -> None:
        for item in choice.considered:
            progress.note(f"not taken: {item.mpirun}: {item.reason}")
        if choice.install is None:
            progress.run((*PINNED, WHEEL), NETWORK_HINT)

    return act


def install_horovod(progress: Progress) -> None:
    """Build Horovod, or take the wheel of an earlier build of the same from the cache."""
    wheels = cache_folder(os.environ) / "wheels"
    hint = f"Built wheels and build logs are in {wheels}. `make setup` tries again."
    progress.run((str(PYTHON), "-u", "-m", "hpctrain", "install-horovod"), hint)


def read_requirements() -> dict[str, list[str]]:
    """Return setup.cfg's requirements: the package's own under "", the extras' by name."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lists = {"": setup["options"]["install_requires"], **setup["options.extras_require"]}
    return {name: value.strip().splitlines() for name, value in lists.items()}


def read_package() -> str:
    """Return what an editable install depends on: the metadata, not the code."""
    files = ("setup.cfg", "pyproject.toml", "hpctrain/__init__.py")
    return "".join((ROOT / name).read_text(encoding="utf-8") for name in files)


def pinned(name: str, pins: str) -> str:
    """Return the version that the constraints pin `name` to.

    >>> pinned("torch", "torchx==1\\ntorch==2.13.0\\n")
    '2.13.0'
    """
    match = re.search(rf"^{re.escape(name)}==(\S+)", pins, re.MULTILINE)
    if match is None:
        raise SystemExit(f"{CONSTRAINTS}: {name} is not pinned; expected {name}==VERSION.")
    return match[1]


def is_done(step: Step) -> bool:
    """Return whether the environment holds the result of this step with these inputs."""
    return PYTHON.exists() and read_done().get(step.name) == digest(step)


def remember(step: Step) -> None:
    """Record that the step is done; a kill at any moment leaves the old or the new record."""
    draft = DONE.with_suffix(".draft")
    draft.write_text(json.dumps({**read_done(), step.name: digest(step)}, indent=1))
    draft.replace(DONE)


def read_done() -> dict[str, str]:
    """Return the digest of each step that is done."""
    try:
        return json.loads(DONE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def digest(step: Step) -> str:
    """Return what identifies the inputs of a step."""
    return hashlib.sha256("\0".join(step.inputs).encode()).hexdigest()
