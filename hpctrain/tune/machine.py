"""What a tuning was measured on, for people who read its file later."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hpctrain import __version__
from hpctrain.facts import Facts, HostFacts
from hpctrain.launch.git_commit import git_commit
from hpctrain.launch.plan import LaunchPlan

PACKAGES = ("torch", "horovod")
# Times under another of these say nothing of each other; another commit is a warning.
SAME = ("hosts", "mpi", *PACKAGES, "python", "hpctrain")


def probe_machine(plan: LaunchPlan, facts: Facts) -> dict[str, str]:
    """Return hardware, versions, hosts and date, each in words."""
    found = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "hardware": _hardware(plan, facts),
        "hosts": ", ".join(f"{place.host}:{place.ranks}" for place in plan.placement),
        "mpi": f"{facts.mpi_flavour} {facts.mpi_version}",
        "python": platform.python_version(),
        "hpctrain": __version__,
        "commit": git_commit() or "unknown",
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def comparable_machine(
    machine: Mapping[str, str], plan: LaunchPlan, facts: Facts
) -> dict[str, str | None]:
    """Return what two processes must have in common for their times to be compared; pure.

    Returns:
        Versions, hosts with their ranks, and each host's hardware; None for a host that was never
        asked what it is.
    """
    same: dict[str, str | None] = {name: machine[name] for name in SAME}
    for place in plan.placement:
        known = facts.of(place.host)
        same[f"hardware of {place.host}"] = None if known is None else _describe(known, facts)
    return same


def describe_machine(machine: Mapping[str, str]) -> list[str]:
    """Return what :func:`probe_machine` found, as lines."""
    versions = [f"{name} {machine[name]}" for name in (*PACKAGES, "python", "hpctrain")]
    return [
        f"{machine['hardware']}; ranks on {machine['hosts']}",
        ", ".join([machine["mpi"], *versions]),
    ]


def _hardware(plan: LaunchPlan, facts: Facts) -> str:
    """Describe the first host: the launcher may be another kind of machine."""
    first = facts.of(plan.placement[0].host)
    if first is None:
        return "hosts that were never asked what they are"
    return _describe(first, facts)


def _describe(first: HostFacts, facts: Facts) -> str:
    cores = f"{first.cores} core{'s' * (first.cores != 1)}"
    if first.gpus:
        kinds = " and ".join(sorted(set(first.gpus)))
        return f"{len(first.gpus)} x {kinds}, {cores} a host"
    if first is facts.launcher:
        return f"{_cpu()}, {cores}"
    return f"CPUs, {cores} a host"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
