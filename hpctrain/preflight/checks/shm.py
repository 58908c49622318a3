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
# Open MPI 5 asks for a file of 16 MiB a rank, of which it fills little. With less free it warns and
# leaves shared memory (seen with 5.0.11 and 4 ranks: at 12 MiB so, at 20 MiB not).
LEAST_BYTES = 16 * 2**20
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
    enough = task.ranks * ENOUGH_BYTES_A_RANK
    if free < enough:
        expected = f"{render_bytes(enough)} for {task.ranks} ranks"
        return Verdict(CODE, FAIL if free < LEAST_BYTES else WARN, found, fix, expected)
    return Verdict(CODE, PASS, found)


SHARED_MEMORY = Check(CODE, on_each_host(CODE, HOST.name, check_shm), (HOST,))
