"""The checks, in the order in which they are shown. One a file: a probe, a verdict, a fix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.checks.acs import ACS
from hpctrain.preflight.checks.clock import CLOCK
from hpctrain.preflight.checks.compiler import check_compiler
from hpctrain.preflight.checks.config import CONFIG
from hpctrain.preflight.checks.cpu_cores import CORES
from hpctrain.preflight.checks.data import DATA
from hpctrain.preflight.checks.disk import DISK
from hpctrain.preflight.checks.efa import EFA
from hpctrain.preflight.checks.firewall import FIREWALL
from hpctrain.preflight.checks.gpu_count import GPU_COUNT
from hpctrain.preflight.checks.gpu_health import GPU_HEALTH
from hpctrain.preflight.checks.gpu_memory import GPU_MEMORY
from hpctrain.preflight.checks.gpu_processes import GPU_PROCESSES
from hpctrain.preflight.checks.gpus import check_gpus
from hpctrain.preflight.checks.horovod import check_horovod
from hpctrain.preflight.checks.host_to_host import HOST_TO_HOST
from hpctrain.preflight.checks.imports import IMPORTS, SAME_SCRIPT
from hpctrain.preflight.checks.memlock import MEMLOCK
from hpctrain.preflight.checks.memory import MEMORY
from hpctrain.preflight.checks.mpi import check_mpi, check_mpirun
from hpctrain.preflight.checks.mpi4py import check_mpi4py
from hpctrain.preflight.checks.mtu import MTU
from hpctrain.preflight.checks.nccl_config import check_nccl_config
from hpctrain.preflight.checks.nccl_library import make_check as make_nccl_check
from hpctrain.preflight.checks.network import NETWORK
from hpctrain.preflight.checks.open_files import OPEN_FILES
from hpctrain.preflight.checks.paths import PATHS, SHARED
from hpctrain.preflight.checks.python import check_python
from hpctrain.preflight.checks.rdma import RDMA
from hpctrain.preflight.checks.reach import REACH
from hpctrain.preflight.checks.same_software import make_checks as make_same_checks
from hpctrain.preflight.checks.shm import SHARED_MEMORY
from hpctrain.preflight.checks.slots import check_slots
from hpctrain.preflight.checks.ssh import check_ssh
from hpctrain.preflight.checks.tcpx import TCPX
from hpctrain.preflight.checks.torch import check_apex, check_torch
from hpctrain.preflight.checks.used import USED, weigh
from hpctrain.preflight.checks.way_back import WAY_BACK
from hpctrain.preflight.checks.xid import XID
from hpctrain.preflight.fleet import Fleet, on_each_host
from hpctrain.preflight.full.allreduce import ALL_REDUCE
from hpctrain.preflight.full.device import MATRIX, MEMORY_RATE
from hpctrain.preflight.full.pairs import PAIRS
from hpctrain.preflight.full.rehearsal import REHEARSAL
from hpctrain.preflight.full.storage import STORAGE_RATE
from hpctrain.preflight.machine import (
    MACHINE_TIMEOUT_S,
    Machine,
    machine_as_json,
    machine_from_json,
    probe_machine,
)
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import SKIP, Verdict


def _look_at_machine(task: NodeTask) -> dict[str, Any]:
    from hpctrain.executor import LocalExecutor

    return machine_as_json(probe_machine(os.environ, LocalExecutor(), given=task.mpirun))


MACHINE = Probe("machine", _look_at_machine, MACHINE_TIMEOUT_S)


def _of_machine(code: str, check: Callable[[Machine], Verdict]) -> Check:
    def judge_host(task: NodeTask, value: Any) -> Verdict:
        machine = machine_from_json(value)
        verdict = check(machine)
        if code not in USED:
            return verdict
        is_missing = "error" in machine.packages.get(code, {"error": ""})
        return weigh(verdict, task, is_missing=is_missing)

    def judge(fleet: Fleet) -> Iterator[Verdict]:
        yield from on_each_host(code, "machine", judge_host)(fleet)

    return Check(code, judge, (MACHINE,))


def _here_alone(check: Check) -> Check:
    """Return a check of what only the launching machine needs, whoever else was asked."""

    def judge(fleet: Fleet) -> Iterator[Verdict]:
        if not fleet.local:
            found = f"this machine takes no rank; alone: hpctrain preflight --only {check.code}"
            yield Verdict(check.code, SKIP, found)
        yield from (each for each in check.judge(fleet) if fleet.local.issuperset(each.hosts))

    return check._replace(judge=judge)


CHECKS: tuple[Check, ...] = (
    CONFIG,
    REACH,
    WAY_BACK,
    HOST_TO_HOST,
    MTU,
    CLOCK,
    _of_machine("python", check_python),
    _of_machine("slots", check_slots),
    _of_machine("mpi", check_mpi),
    _of_machine("mpirun", check_mpirun),
    _of_machine("torch", check_torch),
    _of_machine("horovod", check_horovod),
    _of_machine("mpi4py", check_mpi4py),
    _of_machine("gpus", check_gpus),
    _of_machine("nccl-config", check_nccl_config),
    _here_alone(_of_machine("ssh", check_ssh)),
    _here_alone(_of_machine("compiler", check_compiler)),
    _of_machine("apex", check_apex),
    make_nccl_check(MACHINE),
    *make_same_checks(MACHINE),
    PATHS,
    SHARED,
    DATA,
    IMPORTS,
    SAME_SCRIPT,
    GPU_COUNT,
    GPU_HEALTH,
    XID,
    GPU_PROCESSES,
    GPU_MEMORY,
    MEMORY,
    SHARED_MEMORY,
    MEMLOCK,
    OPEN_FILES,
    DISK,
    CORES,
    NETWORK,
    FIREWALL,
    RDMA,
    EFA,
    TCPX,
    ACS,
    MATRIX,
    MEMORY_RATE,
    STORAGE_RATE,
    ALL_REDUCE,
    PAIRS,
    REHEARSAL,
)

PROBES: Mapping[str, Probe] = {probe.name: probe for check in CHECKS for probe in check.probes}
