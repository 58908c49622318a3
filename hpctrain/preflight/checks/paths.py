"""Can every host write where a run writes, and is that one folder for all hosts?"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.fleet import Fleet, not_asked
from hpctrain.preflight.markers import group_by_sight
from hpctrain.preflight.show import name_hosts
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE, SHARED_CODE = "paths", "shared-folder"


def look_at_paths(task: NodeTask) -> dict[str, Any]:
    """Leave a marker where the run's folder would be made; try the folder for temporary files.

    The marker is taken away once all hosts have looked for the others' (markers.py).
    """
    folder = nearest_folder(Path(task.run_path))
    problem, marked = "", False
    try:
        (folder / task.more["marker"]).touch()
        marked = True
    except OSError as wrong:
        problem = wrong.strerror or str(wrong)
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile():
            pass
    except OSError as wrong:
        temporary = wrong.strerror or str(wrong)
    return {
        "folder": str(folder), "marked": marked, "problem": problem,
        "file_system": find_file_system(Path("/proc/self/mounts").read_text(), str(folder)),
        "cwd": os.path.realpath(os.getcwd()) == os.path.realpath(task.cwd),
        "temporary": temporary, "temporary_folder": os.environ.get("TMPDIR", "/tmp"),
    }  # fmt: skip


def nearest_folder(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next((p for p in (path, *path.parents) if p.is_dir()), Path("/"))


def find_file_system(mounts: str, folder: str) -> str:
    """Return the type of the file system that a folder lies on, from /proc/self/mounts.

    >>> find_file_system("none / overlay rw 0 0\\nnas:/a /data nfs4 rw 0 0", "/data/runs")
    'nfs4'
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        point = fields[1].replace("\\040", " ") if len(fields) > 2 else ""
        inside = point and (folder == point or folder.startswith(point.rstrip("/") + "/"))
        if inside and len(point) >= best:
            best, kind = len(point), fields[2]
    return kind


LOOK_AT_PATHS = Probe(CODE, look_at_paths)


def judge_paths(fleet: Fleet) -> Iterator[Verdict]:
    """Say of each host which of the folders that a run needs are not there, or not writable."""
    for host, answer in fleet.answers.get(CODE, {}).items():
        if answer.error:
            yield not_asked(CODE, host, answer.error)
            continue
        value = answer.value
        problems = list(_find_problems(fleet.tasks[host], value, saves_there(fleet, host)))
        yield from (replace(problem, hosts=(host,)) for problem in problems)
        if not problems:
            found = f"{value['folder']} can be written ({value['file_system']})"
            yield Verdict(CODE, PASS, f"{found}, and so can temporary files", hosts=(host,))


def _find_problems(task: NodeTask, value: Mapping[str, Any], saves: bool) -> Iterator[Verdict]:
    if value["temporary"]:
        folder = value["temporary_folder"]
        found = f"no temporary file can be written to {folder}: {value['temporary']}"
        yield Verdict(CODE, FAIL, found, f"df {folder}; or set TMPDIR", "MPI needs one")
    if not value["cwd"]:
        found = f"{task.cwd} is not there: ranks would start in the home folder"
        fix = f"mkdir -p {task.cwd}, or bring the code there: hpctrain run --sync"
        status = FAIL if task.program or _is_relative(task) else WARN
        yield Verdict(CODE, status, found, fix, "the launcher's working directory")
    if not value["marked"]:
        found = f"{value['folder']} cannot be written: {value['problem']}"
        fix = f"ls -ld {value['folder']}; or choose another --runs-dir"
        yield Verdict(CODE, FAIL if saves else WARN, found, fix, f"room for {task.run_path}")


def saves_there(fleet: Fleet, host: str) -> bool:
    """Whether a host writes checkpoints: rank 0's does; of a sharded optimizer each one that has
    ranks."""
    task = fleet.tasks[host]
    if not _saves(task):
        return False
    # Between attempts the launching machine is not asked, and may be the one that has rank 0.
    first = fleet.facts.get(CODE) or next((h for h, t in fleet.tasks.items() if t.ranks), host)
    return host == first or (task.config["optim"]["sharded"] and task.ranks > 0)


def _saves(task: NodeTask) -> bool:
    return bool(task.config) and task.config["checkpoint"]["save"] == "on"


def _is_relative(task: NodeTask) -> bool:
    """Whether the training reads data by a path that begins in the working directory."""
    if not task.config:
        return False
    data = task.config["data"]
    names = list(data["mixture"]) or [data["path"]]
    return data["factory"] is not None or any(not os.path.isabs(name) for name in names)


def judge_shared(fleet: Fleet) -> Iterator[Verdict]:
    """Say whether all hosts see one run folder, and what it means where they do not."""
    answers = fleet.answers.get(CODE, {})
    for host, answer in answers.items():
        if answer.error:
            yield not_asked(SHARED_CODE, host, answer.error)
    seen = fleet.facts.get(SHARED_CODE, {})
    if not seen:
        yield Verdict(SHARED_CODE, SKIP, "no host could write there")
        return
    groups = group_by_sight(seen)
    hosts = tuple(host for group in groups for host in group)
    folder = answers[hosts[0]].value["folder"]
    if len(groups) == 1:
        found = f"a file that one host writes to {folder}, the others see"
        yield Verdict(SHARED_CODE, PASS, found, hosts=hosts)
        return
    parts = "; ".join(name_hosts(group, len(fleet.hosts)) for group in groups[:4])
    more = f"; and {len(groups) - 4} more" if len(groups) > 4 else ""
    found = f"{folder} is {len(groups)} folders: {parts}{more} do not see each other's files"
    task = fleet.tasks[hosts[0]]
    shards = _saves(task) and task.config["optim"]["sharded"] and fleet.np > 1
    fix = "choose a --runs-dir on a file system that all hosts share"
    if shards:
        fix += ", or --set optim.sharded=false"
        expected = "one folder: each rank writes its part of a sharded optimizer"
        # About a setting: none of the hosts is broken, and leaving them out would mend nothing.
        yield Verdict(SHARED_CODE, FAIL, found, fix, expected)
    elif _saves(task):
        found += "; rank 0's host alone would write checkpoints, and resuming needs that host"
        yield Verdict(SHARED_CODE, WARN, found, fix, "", hosts)
    else:
        yield Verdict(SHARED_CODE, WARN, found, fix, "", hosts)


PATHS = Check(CODE, judge_paths, (LOOK_AT_PATHS,))
SHARED = Check(SHARED_CODE, judge_shared, (LOOK_AT_PATHS,), needs_hosts=True)
