"""What is a measurement made on? Hardware, versions, date, and how busy the machine was."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hpctrain import __version__
from hpctrain.cores import count_cores
from hpctrain.executor import LocalExecutor
from hpctrain.launch.find_mpi import find_mpi
from hpctrain.launch.git_commit import git_commit

BUSY_LOAD = 0.5  # of one core, before a measurement of our own


def probe_environment(
    packages: Sequence[str] = (), mpi: bool = True, mpirun: str | None = None
) -> dict[str, str]:
    """Return what numbers that are measured now, on this machine, are measured on.

    Args:
        packages: those whose version matters.
        mpi: whether the MPI matters.
        mpirun: the launcher that the configuration names.

    Raises:
        PlanError: no usable mpirun, where the MPI matters.
    """
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    found = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu[0].partition(": ")[2] if cpu else platform.machine(),
        "cores": str(count_cores()),
        "load_before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "python": platform.python_version(),
        "hpctrain": __version__,
        "commit": git_commit() or "unknown",
    }
    if mpi:
        library = find_mpi(os.environ, LocalExecutor(), given=mpirun)
        found["mpi"] = f"{library.flavour} {library.version}"
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def probe_load() -> float:
    """Return this machine's load average over the last minute."""
    return os.getloadavg()[0]
