"""How many cores may this process use? Asked by every rank, so it imports next to nothing."""

from __future__ import annotations

import os


def count_cores() -> int:
    """Return the physical cores that this process may use, as Open MPI counts slots."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        topology = f"/sys/devices/system/cpu/cpu{cpu}/topology"
        package, core = _read(f"{topology}/physical_package_id"), _read(f"{topology}/core_id")
        cores.add((package, core) if package and core else ("cpu", str(cpu)))
    quota = parse_cpu_quota(_read("/sys/fs/cgroup/cpu.max"))
    return max(1, min(len(cores), int(quota) if quota else len(cores)))


def parse_cpu_quota(text: str) -> float | None:
    """Parse cgroup v2's ``cpu.max`` into CPUs; None where there is no limit.

    >>> parse_cpu_quota("200000 100000"), parse_cpu_quota("max 100000")
    (2.0, None)
    """
    words = text.split()
    if len(words) != 2 or not (words[0].isdigit() and words[1].isdigit()):
        return None
    return int(words[0]) / int(words[1])


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
