"""Main memory, limits and cores of a host: the probe that the checks of them share."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

from hpctrain.cores import count_cores
from hpctrain.preflight.check import Probe
from hpctrain.preflight.task import NodeTask

_CAP_IPC_LOCK = 14  # linux/capability.h
SHM = "/dev/shm"


def _look(task: NodeTask) -> dict[str, Any]:
    status = _fields(Path("/proc/self/status").read_text())
    return {
        "available_bytes": available_bytes(
            Path("/proc/meminfo").read_text(),
            Path("/proc/self/cgroup").read_text(),
            Path("/sys/fs/cgroup"),
        ),
        "shm": _space(SHM),
        "memlock": _limits(resource.RLIMIT_MEMLOCK),
        "may_lock": bool(int(status.get("CapEff", "0"), 16) >> _CAP_IPC_LOCK & 1),
        "nofile": _limits(resource.RLIMIT_NOFILE),
        "cores": count_cores(),
        "cpus": len(os.sched_getaffinity(0)),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }


HOST = Probe("host-state", _look, 10.0)


def available_bytes(meminfo: str, own_cgroup: str, cgroups: Path) -> int:
    """Return the main memory that new processes may have.

    The least of MemAvailable and of what every cgroup (version 2) above us leaves, whose file
    cache counts as free.

    Args:
        meminfo: /proc/meminfo.
        own_cgroup: /proc/self/cgroup.
        cgroups: where the hierarchy is mounted.
    """
    room = [int(_fields(meminfo)["MemAvailable"].split()[0]) * 1024]
    inside = next(
        (line[3:].strip("/") for line in own_cgroup.splitlines() if line.startswith("0::")), ""
    )
    folder = cgroups / inside
    while folder.is_relative_to(cgroups):
        limit, used = _read(folder / "memory.max"), _read(folder / "memory.current")
        if limit.isdigit() and used.isdigit():
            stat = dict(line.split(" ", 1) for line in _read(folder / "memory.stat").splitlines())
            room.append(int(limit) - int(used) + int(stat.get("inactive_file", 0)))
        folder = folder.parent
    return max(0, min(room))


def _fields(text: str) -> dict[str, str]:
    return {
        name.strip(): value.strip()
        for name, colon, value in (line.partition(":") for line in text.splitlines())
        if colon
    }


def _limits(which: int) -> list[int | None]:
    """Return soft and hard limit; None for none."""
    return [None if each == resource.RLIM_INFINITY else each for each in resource.getrlimit(which)]


def _space(path: str) -> dict[str, int] | None:
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return {
        "total_bytes": found.f_blocks * found.f_frsize,
        "free_bytes": found.f_bavail * found.f_frsize,
    }


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
