"""Which GPUs, and how many, would be cheapest? The same job on every machine with a price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpctrain.clusters.cloud.prices import read_prices
from hpctrain.errors import ConfigError
from hpctrain.estimate.asked import Asked, Errors, read_config, read_job
from hpctrain.estimate.gpus import Gpu, find_gpu, read_gpus
from hpctrain.estimate.money import priced_machines
from hpctrain.estimate.nodes import find_node_kind, plan_cluster
from hpctrain.estimate.plan import Assumptions, Estimate, plan_estimate
from hpctrain.estimate.request import read_assumptions, read_goals
from hpctrain.estimate.smallest import Goals, meets
from hpctrain.estimate.speed import Job

NODES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One row of the table."""

    estimate: Estimate
    meets: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """Args:
    choices: those that meet every goal first, the cheapest first; then the quickest first.
    left_out: what could not be estimated, and why.
    """

    choices: tuple[Choice, ...]
    left_out: tuple[str, ...]


def sweep(asked: Asked) -> Sweep:
    """Return the job on 1 to 128 of the machines of each GPU; --gpu and --instance narrow it.

    Raises:
        ConfigError: naming everything that is wrong.
        BenchError: a measured run that would be taken claims over 100 % MFU.
    """
    errors = Errors()
    goals = read_goals(asked, errors)
    prices = errors.attempt(read_prices, asked.prices)
    gpus = errors.attempt(_wanted_gpus, asked)
    first = gpus[0] if gpus else None
    config = errors.attempt(read_config, asked, first)
    if config is not None:
        errors.attempt(read_job, asked, config)
    errors.raise_all()
    assert prices is not None
    assert gpus is not None
    choices: list[Choice] = []
    left_out: list[str] = []
    for gpu in gpus:
        job = read_job(asked, read_config(asked, gpu))
        try:
            assumptions = read_assumptions(asked, job, gpu, prices)
        except ConfigError as problem:
            left_out += [f"{gpu.name}: {each.split(', got ')[0]}" for each in problem.messages]
            continue
        found = list(_choices(asked, job, gpu, assumptions, goals))
        choices += found
        if not found:
            left_out.append(f"{gpu.name}: no machine with it has a price")
    return Sweep(choices=tuple(sorted(choices, key=_order)), left_out=tuple(left_out))


def _wanted_gpus(asked: Asked) -> list[Gpu]:
    if asked.instance is not None:
        return [find_node_kind(asked.instance).gpu]
    return [find_gpu(asked.gpu)] if asked.gpu is not None else list(read_gpus().values())


def _choices(
    asked: Asked, job: Job, gpu: Gpu, assumptions: Assumptions, goals: Goals
) -> Iterator[Choice]:
    for machine, nodes in _sizes(assumptions.prices, gpu, asked.instance):
        kind = find_node_kind(machine)
        cluster = plan_cluster(gpu, nodes * kind.gpus, None, kind, None)
        try:
            estimate = plan_estimate(job, cluster, assumptions)
        except ConfigError:  # fewer sequences than GPUs
            continue
        yield Choice(estimate=estimate, meets=meets(estimate, goals))


def _sizes(prices: Mapping[str, Any], gpu: Gpu, instance: str | None) -> Iterator[tuple[str, int]]:
    """Yield machines and how many: of each provider's largest up to 128, of smaller ones one."""
    cheapest: dict[tuple[str, int], str] = {}
    for provider, machine, gpus in priced_machines(prices, gpu):
        if instance is not None and machine != instance:
            continue
        usd = prices[provider]["machines"]
        known = cheapest.get((provider, gpus))
        if known is None or usd[machine] < usd[known]:
            cheapest[provider, gpus] = machine
    for (provider, gpus), machine in cheapest.items():
        is_largest = gpus == max(size for cloud, size in cheapest if cloud == provider)
        for nodes in NODES if is_largest else (1,):
            yield machine, nodes


def _order(choice: Choice) -> tuple[bool, float]:
    estimate = choice.estimate
    if choice.meets and estimate.usd is not None:
        return False, estimate.usd
    return True, estimate.expected_s
