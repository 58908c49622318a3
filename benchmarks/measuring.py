"""What every benchmark here needs: what it ran on, medians with quartiles, a file of results."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hpctrain import __version__
from hpctrain.cores import count_cores
from hpctrain.executor import LocalExecutor
from hpctrain.launch.find_mpi import find_mpi
from hpctrain.launch.start import git_commit

Values = Mapping[str, Sequence[float]]
BUSY_LOAD = 0.5


def environment(packages: Sequence[str] = (), mpi: bool = True) -> dict[str, str]:
    """Return what the numbers are measured on; `packages` names those whose version matters."""
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
        library = find_mpi(os.environ, LocalExecutor())
        found["mpi"] = f"{library.flavour} {library.version}"
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def warn_if_busy() -> None:
    """Say so where other work disturbs the measurement."""
    load = os.getloadavg()[0]
    if load > BUSY_LOAD:
        print(f"warning: the machine is busy, load {load:.2f}: expect spread, repeat when quiet")


def ratios(values: Values, above: str, below: str) -> list[float]:
    """Return `above` / `below`, pair by pair."""
    return [a / b for a, b in zip(values[above], values[below], strict=True)]


def table(values: Values, unit: str) -> str:
    """Return a Markdown table: the median of each row with its quartiles."""
    lines = ["| | median | quartiles |", "|---|---|---|"]
    lines += [row(title, numbers, unit) for title, numbers in values.items()]
    return "\n".join(lines)


def row(title: str, numbers: Sequence[float], unit: str = "") -> str:
    """Return a row of :func:`table`; quartiles from two values on."""
    low, middle, high = quartiles(numbers)
    return f"| {title} | {middle:.4g}{unit} | {low:.4g} to {high:.4g} |"


def quartiles(numbers: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile.

    >>> quartiles([4.0])
    (4.0, 4.0, 4.0)
    """
    if len(numbers) < 2:
        return numbers[0], numbers[0], numbers[0]
    low, middle, high = statistics.quantiles(numbers, n=4)
    return low, middle, high


def write_result(path: Path | None, record: Mapping[str, Any]) -> None:
    """Keep raw values and environment as JSON."""
    if path is not None:
        path.write_text(json.dumps(record, indent=1) + "\n")
