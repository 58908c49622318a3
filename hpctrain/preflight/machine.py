"""Everything that the local checks look at, asked once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hpctrain.errors import PlanError
from hpctrain.executor import Command, Completed, Executor
from hpctrain.facts import HostFacts
from hpctrain.horovod_stamp import HorovodStamp, read_horovod_stamp
from hpctrain.launch.find_mpi import MpiInstall, find_mpi
from hpctrain.probe import probe_this_host

PACKAGES_TIMEOUT_S = 120.0  # the first import of torch from a cold disk takes that long
MPIRUN_TIMEOUT_S = 30.0
# All of it, with what is asked besides: MPIs' versions, GPUs, Horovod's stamp.
MACHINE_TIMEOUT_S = PACKAGES_TIMEOUT_S + MPIRUN_TIMEOUT_S + 40.0
NCCL_CONFIG_FILES = ("/etc/nccl.conf", "~/.nccl.conf")


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine as preflight sees it.

    Args:
        mpi: the MPI that `hpctrain run` takes; None, with `mpi_problem`, where there is none.
        mpirun_trial: what ``mpirun`` did with ``true`` on two ranks.
        packages: name → version and more, as ``python -m hpctrain.train.versions`` tells it;
            a package that is missing or broken has an "error".
    """

    facts: HostFacts
    python: str
    python_version: tuple[int, int, int]
    programs: Mapping[str, str | None]
    has_python_header: bool
    mpi: MpiInstall | None
    mpi_problem: str
    mpirun_trial: Completed | None
    packages: Mapping[str, Mapping[str, Any]]
    stamp: HorovodStamp | None
    nccl_config_files: tuple[str, ...]


def probe_machine(
    environ: Mapping[str, str], executor: Executor, given: str | None = None
) -> Machine:
    """Ask this machine; takes a few seconds, most of it for importing torch.

    Args:
        given: the mpirun that the configuration names (`launch.mpirun`).
    """
    import shutil
    import sysconfig

    mpi, problem = None, ""
    try:
        mpi = find_mpi(environ, executor, given=given)
    except PlanError as none:
        problem = str(none)
    names = [*NCCL_CONFIG_FILES, environ.get("NCCL_CONF_FILE", "")]
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return Machine(
        facts=probe_this_host(environ, executor),
        python=sys.executable,
        python_version=sys.version_info[:3],
        programs={name: shutil.which(name) for name in ("g++", "make", "ssh", "git")},
        has_python_header=header.is_file(),
        mpi=mpi,
        mpi_problem=problem,
        mpirun_trial=_try_mpirun(mpi, executor) if mpi else None,
        packages=_probe_packages(executor),
        stamp=read_horovod_stamp(),
        nccl_config_files=tuple(n for n in names if n and Path(os.path.expanduser(n)).is_file()),
    )


def _try_mpirun(mpi: MpiInstall, executor: Executor) -> Completed:
    """Run the plan that ``hpctrain run --np 2 -- true`` would run, without a launcher."""
    from hpctrain.facts import Facts
    from hpctrain.launch.plan import plan_launch
    from hpctrain.launch.request import LaunchRequest

    facts = Facts(
        launcher=HostFacts(hostname="", cores=1, user_id=os.getuid()),
        mpi_flavour=mpi.flavour,
        mpi_version=mpi.version,
        mpirun=mpi.mpirun,
    )
    request = LaunchRequest(("true",), np=2, oversubscribe=True, environ=dict(os.environ))
    return executor.run(plan_launch(request, facts).command, timeout_s=MPIRUN_TIMEOUT_S)


def _probe_packages(executor: Executor) -> dict[str, dict[str, Any]]:
    command = Command((sys.executable, "-m", "hpctrain.train.versions"))
    done = executor.run(command, timeout_s=PACKAGES_TIMEOUT_S)
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {"python": {"error": done.last_words}}
    return answer if isinstance(answer, dict) else {}


def machine_as_json(machine: Machine) -> dict[str, Any]:
    """Return what was seen as JSON-ready values, for the way to the launcher."""
    # asdict leaves named tuples as tuples, whose names would be lost, and copies no mapping proxy.
    value = asdict(replace(machine, mpirun_trial=None))
    if machine.mpirun_trial is not None:
        value["mpirun_trial"] = machine.mpirun_trial._asdict()
        value["mpirun_trial"]["command"] = list(machine.mpirun_trial.command.argv)
    return value


def machine_from_json(value: Mapping[str, Any]) -> Machine:
    """Return the machine that :func:`machine_as_json` wrote.

    Raises:
        ValueError: it is none.
    """
    import msgspec

    trial = value["mpirun_trial"]
    if trial is not None:
        trial = Completed(
            Command(tuple(trial["command"])), trial["returncode"], trial["stdout"], trial["stderr"]
        )
    plain = msgspec.convert({**value, "mpirun_trial": None}, Machine)
    return replace(plain, mpirun_trial=trial)
