"""A quick preflight between two attempts of a run: what may have broken on hosts that answer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hpctrain.config import as_tables
from hpctrain.errors import ConfigError
from hpctrain.launch.environment import plan_forwarding
from hpctrain.launch.prepare import Prepared
from hpctrain.preflight.checks import CHECKS
from hpctrain.preflight.checks.gpu_count import GPU_COUNT
from hpctrain.preflight.checks.paths import PATHS
from hpctrain.preflight.need import plan_need
from hpctrain.preflight.request import Request
from hpctrain.preflight.run import run_checks
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL

# What breaks while a run runs, and is quickly seen. Not whether the software is the same: it was.
CODES = ("gpu-count", "gpu-health", "xid", "shm", "disk", "paths")


def find_unfit_hosts(
    ranks: Mapping[str, int], prepared: Prepared, ssh_options: tuple[str, ...],
    local: frozenset[str] = frozenset(), *, first: str, had_gpus: bool,
) -> dict[str, str]:  # fmt: skip
    """Return the hosts on which a check fails, with what it found.

    Args:
        ranks: host → ranks that would run there.
        ssh_options: as the run's own ssh gets them.
        local: hosts that are this machine.
        first: the host that had rank 0.
        had_gpus: whether hosts had GPUs when the run began.
    """
    if not ranks:
        return {}
    np = sum(ranks.values())
    config = as_tables(prepared.config) if prepared.is_trainer else {}
    facts: dict[str, Any] = {PATHS.code: first, GPU_COUNT.code: had_gpus}
    if prepared.is_trainer:
        try:
            facts["need"] = plan_need(prepared.config, np)
        except ConfigError as wrong:
            facts["need"] = wrong.messages[0]
    environ = prepared.request.environ
    names, _ = plan_forwarding(environ, {}, prepared.config.launch.forward)
    tasks = {
        host: NodeTask(
            host=host, ranks=count, np=np, config=config, cwd=os.getcwd(),
            environ={name: environ[name] for name in names},
            run_path=str(prepared.run_path.absolute()),
            program=() if prepared.is_trainer else prepared.request.program,
        )
        for host, count in ranks.items()
    }  # fmt: skip
    request = Request(
        tasks=tasks,
        local=local,
        ssh_options=ssh_options,
        facts=facts,
        python_options=prepared.request.python_options,
    )
    _, verdicts = run_checks(request, [check for check in CHECKS if check.code in CODES])
    unfit: dict[str, str] = {}
    for verdict in verdicts:
        if verdict.status == FAIL:
            for host in verdict.hosts:
                unfit.setdefault(host, f"{verdict.code}: {verdict.found}")
    return unfit
