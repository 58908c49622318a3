"""The checks, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable

from hpctrain.preflight.checks.compiler import check_compiler
from hpctrain.preflight.checks.gpus import check_gpus
from hpctrain.preflight.checks.horovod import check_horovod
from hpctrain.preflight.checks.mpi import check_mpi, check_mpirun
from hpctrain.preflight.checks.mpi4py import check_mpi4py
from hpctrain.preflight.checks.nccl_config import check_nccl_config
from hpctrain.preflight.checks.python import check_python
from hpctrain.preflight.checks.slots import check_slots
from hpctrain.preflight.checks.ssh import check_ssh
from hpctrain.preflight.checks.torch import check_apex, check_torch
from hpctrain.preflight.machine import Machine
from hpctrain.preflight.verdict import Verdict

CHECKS: tuple[Callable[[Machine], Verdict], ...] = (
    check_python,
    check_slots,
    check_mpi,
    check_mpirun,
    check_torch,
    check_horovod,
    check_mpi4py,
    check_gpus,
    check_nccl_config,
    check_ssh,
    check_compiler,
    check_apex,
)
