"""May ranks pin memory, where there is RDMA that needs it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpctrain.estimate.quantities import render_bytes
from hpctrain.preflight.check import Check
from hpctrain.preflight.checks.host_state import HOST
from hpctrain.preflight.checks.rdma import RDMA_PORTS, keeps_to_tcp, read_ports
from hpctrain.preflight.fleet import Fleet, on_each_host
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE = "memlock"


def judge_memlock(fleet: Fleet) -> Iterator[Verdict]:
    """Fail a limit where ranks use a port that is up: RDMA registers buffers, which pins them."""
    ports = fleet.answers_of(RDMA_PORTS.name)
    up = {h for h, value in ports.items() if any(p.is_up for p in read_ports(value))}

    def judge(task: NodeTask, value: dict[str, Any]) -> Verdict:
        soft, _ = value["memlock"]
        found = "unlimited" if soft is None else render_bytes(soft)
        if task.host not in up:
            return Verdict(CODE, SKIP, f"{found}; no RDMA there that would pin memory")
        if len(fleet.tasks) == 1:
            return Verdict(CODE, SKIP, f"{found}; within one host nothing goes over RDMA")
        if soft is None or value["may_lock"]:
            return Verdict(
                CODE, PASS, found if soft is None else f"{found}, lifted by CAP_IPC_LOCK"
            )
        fix = (
            "'* - memlock unlimited' in /etc/security/limits.conf, then log in again; under Slurm "
            "also LimitMEMLOCK=infinity for slurmd; a container: --ulimit memlock=-1"
        )
        status = WARN if keeps_to_tcp(task) else FAIL
        return Verdict(CODE, status, found, fix, "unlimited, for RDMA")

    yield from on_each_host(CODE, HOST.name, judge)(fleet)


MEMLOCK = Check(CODE, judge_memlock, (HOST, RDMA_PORTS))
