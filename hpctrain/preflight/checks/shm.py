"""Is /dev/shm large enough for ranks that exchange through it?

Containers get 64 MiB unless told otherwise (docker run --shm-size), which NCCL's own guide
names as a cause of failures ("Troubleshooting", shared memory: --shm-size=1g).
"""

from __future__ import annotations

from typing import Any

from hpctrain.estimate.quantities import render_bytes
from hpctrain.preflight.check import Check
from hpctrain.preflight.checks.host_state import HOST, SHM
from hpctrain.preflight.fleet import on_each_host
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE = "shm"
# What Open MPI's shared-memory transport sets aside for each rank (btl_vader_segment_size and
# btl_sm_segment_size, 4 MiB by default), rounded up for what else it keeps.
LEAST_BYTES_A_RANK = 8 * 2**20
ENOUGH_BYTES_A_RANK = 64 * 2**20


def check_shm(task: NodeTask, value: dict[str, Any]) -> Verdict:
    """Compare what is free with what MPI and NCCL set aside for each rank."""
    shm = value["shm"]
    fix = f"mount -o remount,size=8G {SHM}; a container: --shm-size=8g or --ipc=host"
    if task.ranks < 2:
        return Verdict(CODE, SKIP, "one rank there exchanges nothing through it")
    if shm is None:
        return Verdict(CODE, FAIL, f"no {SHM}", fix)
    free = shm["free_bytes"]
    found = f"{render_bytes(free)} free of {render_bytes(shm['total_bytes'])}"
    for status, each in ((FAIL, LEAST_BYTES_A_RANK), (WARN, ENOUGH_BYTES_A_RANK)):
        if free < task.ranks * each:
            expected = f"{render_bytes(task.ranks * ENOUGH_BYTES_A_RANK)} for {task.ranks} ranks"
            return Verdict(CODE, status, found, fix, expected)
    return Verdict(CODE, PASS, found)


SHARED_MEMORY = Check(CODE, on_each_host(CODE, HOST.name, check_shm), (HOST,))
