"""Is there room for the checkpoints where the run writes them?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpctrain.estimate.quantities import render_bytes
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.checks.gpu_memory import NEED
from hpctrain.preflight.checks.paths import saves_there
from hpctrain.preflight.fleet import Fleet, on_each_host
from hpctrain.preflight.need import RunNeed
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, WARN, Verdict
from hpctrain.train.checkpoint_folder import FOLDER

CODE = "disk"
# For logs and events; below it a disk is as good as full.
OTHER_BYTES = 10**9


def _look(task: NodeTask) -> dict[str, Any]:
    run = Path(task.run_path or task.cwd).absolute()
    folder = run
    while not folder.is_dir():
        folder = folder.parent
    found = os.statvfs(folder)
    return {
        "folder": str(folder),
        "free_bytes": found.f_bavail * found.f_frsize,
        # Some file systems count no files, and have 0 of 0.
        "files": [found.f_files, found.f_favail],
        "held_bytes": count_held_bytes(run / FOLDER) if task.run_path else 0,
    }


def count_held_bytes(checkpoints: Path) -> int:
    """Return what a run's checkpoints take that it removes by itself, half-written ones too."""
    held_bytes = 0
    for checkpoint in checkpoints.glob("*step-*"):
        for file in checkpoint.glob("*"):
            with suppress(OSError):  # the run may be removing it
                held_bytes += file.stat().st_size
    return held_bytes


# Apart from the other facts of a host: asking a network file system that is gone never ends.
DISK_SPACE = Probe("disk-space", _look, 15.0)


def judge_disk(fleet: Fleet) -> Iterator[Verdict]:
    """Compare what is free or held by checkpoints with what they take at most."""
    need = fleet.facts.get(NEED)

    def judge(task: NodeTask, value: dict[str, Any]) -> Verdict:
        folder, free = value["folder"], value["free_bytes"]
        # Those that lie there already are among the ones that the run needs room for.
        held = value["held_bytes"]
        found = f"{render_bytes(free)} free at {folder}"
        if held:
            found += f", and {render_bytes(held)} in the run's checkpoints"
        fix = f"df -h {folder}; --runs-dir on a larger disk, or --set checkpoint.keep_last=1"
        total, files = value["files"]
        wrong = FAIL if saves_there(fleet, task.host) else WARN
        if total and not files:
            return Verdict(CODE, wrong, f"no file can be made at {folder}: no inodes", "df -i")
        if not isinstance(need, RunNeed):
            expected = f"{render_bytes(OTHER_BYTES)} at least"
            if free < OTHER_BYTES:
                return Verdict(CODE, WARN, found, fix, expected)
            return Verdict(CODE, PASS, f"{expected} free at {folder}; no estimate for this run")
        each = render_bytes(need.checkpoint_bytes)
        many = "" if need.checkpoints == 1 else "s"
        what = f"{need.checkpoints} checkpoint{many} of {each}"
        if free + held < need.disk_bytes:
            expected = f"{render_bytes(need.disk_bytes)}: {what}"
            if wrong == WARN:
                expected += ", which this host does not write"
            return Verdict(CODE, wrong, found, fix, expected)
        if free < OTHER_BYTES or free + held < need.disk_bytes + OTHER_BYTES:
            expected = f"{render_bytes(need.disk_bytes + OTHER_BYTES)}: {what}, and logs"
            return Verdict(CODE, WARN, found, fix, expected)
        wanted = f"{render_bytes(need.disk_bytes)} needed ({what}), and free"
        return Verdict(CODE, PASS, f"{wanted} at {folder}")

    yield from on_each_host(CODE, DISK_SPACE.name, judge)(fleet)


DISK = Check(CODE, judge_disk, (DISK_SPACE,))
