"""Runs on a cluster whose results have not come back: one file each, in the cluster's directory.

One file each, so that two runs that begin or end at once do not undo each other's.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from hpctrain.clusters.cluster_dir import ClusterDirectory
from hpctrain.errors import ClusterError

FOLDER = "unfetched"


@dataclass(frozen=True, slots=True)
class HeadRun:
    """A run on a head, and where its results are to go.

    Args:
        work: its working directory there, relative to the home.
        runs_dir: as given to `hpctrain run`, relative to the working directory.
        target: the run's directory here, absolute.
    """

    name: str
    work: str
    runs_dir: str
    target: str


def remember(directory: ClusterDirectory, run: HeadRun) -> None:
    """Remember that a run's results are still on the cluster.

    Raises:
        ClusterError: the cluster is being removed.
    """
    path = _file(directory, run)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        draft.write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as problem:
        raise ClusterError(f"{path}: cannot be written: {problem.strerror}.") from problem
    record = directory.read()
    if record is not None and record.state == "destroying":
        forget(directory, run)
        raise ClusterError(
            f"{directory.name}: it is being removed, got state destroying; expected up. See: "
            f"hpctrain cluster status --name {directory.name}"
        )


def forget(directory: ClusterDirectory, run: HeadRun) -> None:
    """Forget a run: its results are here, or there are none."""
    _file(directory, run).unlink(missing_ok=True)


def pending_runs(directory: ClusterDirectory) -> list[HeadRun]:
    """Return the runs whose results were not fetched.

    Raises:
        ClusterError: a file says nothing of a run.
    """
    found = []
    for path in sorted((directory.path / FOLDER).glob("*.json")):
        try:
            found.append(HeadRun(**json.loads(path.read_text(encoding="utf-8"))))
        except FileNotFoundError:
            continue  # fetched meanwhile
        except (OSError, ValueError, TypeError) as problem:
            raise ClusterError(
                f"{path}: cannot be read: {problem}; expected a run whose results are on "
                f"{directory.name}. Look for them there: hpctrain cluster ssh --name "
                f"{directory.name}; then remove the file"
            ) from problem
    return found


def refuse_unfetched(directory: ClusterDirectory) -> None:
    """Refuse to remove a cluster that has results of which there is no copy.

    Raises:
        ClusterError: with the runs.
    """
    if pending := pending_runs(directory):
        names = ", ".join(run.name for run in pending)
        raise ClusterError(
            f"{directory.name}: results were not fetched, got {names}; expected none. "
            f"Fetch them: hpctrain cluster fetch --name {directory.name}; or remove them with it: "
            f"hpctrain cluster down --name {directory.name} --discard-results"
        )


def _file(directory: ClusterDirectory, run: HeadRun) -> Path:
    return directory.path / FOLDER / f"{run.name}.json"
