"""All-reduces of a measurement: which, on each placement, beside its trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from hpctrain.bench.scaling.cases import Case
from hpctrain.bench.scaling.request import RUNS, Bench
from hpctrain.bench.scaling.trials import case_hosts
from hpctrain.config.schema import Config, LaunchConfig

if TYPE_CHECKING:
    from hpctrain.bench.allreduce.results import AllreduceResult

# A short sweep: enough to fit a link, and to see from which size on it is full.
ALLREDUCE_SIZES = (4, 4 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20)
ALLREDUCE_BUDGET_S = 10.0


def measure_allreduce(bench: Bench, placement: str, case: Case) -> AllreduceResult:
    """Run a short sweep on the ranks of a case.

    Raises:
        BenchError: it failed, or an element of a sum was wrong.
    """
    from hpctrain.bench.allreduce.measure import run_allreduce

    config = bench.config
    return run_allreduce(
        bench.folder / RUNS, f"allreduce-{placement}", case.np, hosts=case_hosts(bench, case),
        ssh_config=bench.ssh_config if case.hosts is not None else None,
        backends=allreduce_backends(config, is_trainer=not bench.program),
        sizes=ALLREDUCE_SIZES, budget_s=ALLREDUCE_BUDGET_S,
        oversubscribe=bench.oversubscribe, device=config.train.device,
        overrides=launch_overrides(config.launch),
    )  # fmt: skip


def allreduce_backends(config: Config, *, is_trainer: bool) -> tuple[str, ...]:
    """Return the all-reduces that say something about this training; all, for a COMMAND.

    >>> allreduce_backends(Config(), is_trainer=True)
    ('horovod', 'buckets')
    """
    if not is_trainer or config.comm.backend == "none":
        return ("horovod", "mpi4py", "torch")
    if config.comm.backend == "ddp":
        return ("torch",)
    return ("horovod",) if config.comm.exchange == "native" else ("horovod", "buckets")


def launch_overrides(launch: LaunchConfig) -> tuple[str, ...]:
    """Return the settings of a launch that are not the default, as ``--set`` takes them.

    >>> launch_overrides(LaunchConfig(threads_per_rank=2, env={"A": "b"}))
    ('launch.env={"A" = "b"}', 'launch.threads_per_rank=2')
    """
    defaults = LaunchConfig()
    return tuple(
        f"launch.{item.name}={_toml(value)}"
        for item in fields(LaunchConfig)
        if (value := getattr(launch, item.name)) != getattr(defaults, item.name)
    )


def _toml(value: object) -> str:
    """Write a value as TOML: as JSON has it, but for a table."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
