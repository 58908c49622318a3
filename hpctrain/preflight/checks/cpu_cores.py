"""Has each host a core for every thread of its ranks?"""

from __future__ import annotations

from typing import Any

from hpctrain.preflight.check import Check
from hpctrain.preflight.checks.host_state import HOST
from hpctrain.preflight.fleet import on_each_host
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import PASS, SKIP, WARN, Verdict

CODE = "cores"


def check_cores(task: NodeTask, value: dict[str, Any]) -> Verdict:
    """Compare ranks × threads with the cores, or with hardware threads where there are more."""
    if not task.ranks:
        return Verdict(CODE, SKIP, "no ranks there")
    cores, cpus = value["cores"], value["cpus"]
    given = value["omp_num_threads"] or str(task.config.get("launch", {}).get(
        "threads_per_rank") or "")  # fmt: skip
    first = given.split(",")[0].strip()
    threads = int(first) if first.isdigit() and int(first) else max(1, cores // task.ranks)
    wanted = task.ranks * threads
    found = f"{task.ranks} ranks x {threads} threads on {cores} cores"
    if wanted > max(cores, cpus):
        fix = f"--set launch.threads_per_rank={max(1, cores // task.ranks)}"
        if task.ranks > cores:
            fix = f"slots={cores} in the hostfile: ranks that share a core wait for each other"
        return Verdict(CODE, WARN, found, fix)
    return Verdict(CODE, PASS, found)


CORES = Check(CODE, on_each_host(CODE, HOST.name, check_cores), (HOST,))
