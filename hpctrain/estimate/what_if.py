"""Which GPUs, and how many, would be cheapest? The same job on every machine with a price."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpctrain.clusters.cloud.prices import read_prices
from hpctrain.errors import ConfigError
from hpctrain.estimate.asked import Asked, Errors, read_config, read_job
from hpctrain.estimate.gpus import Gpu, find_gpu, read_gpus
from hpctrain.estimate.money import priced_machines
from hpctrain.estimate.nodes import NodeKind, find_node_kind, plan_cluster
from hpctrain.estimate.plan import Assumptions, Estimate, plan_estimate
from hpctrain.estimate.request import check_counts, check_exchange, read_assumptions, read_goals
from hpctrain.estimate.smallest import Goals, meets
from hpctrain.estimate.speed import Job
from hpctrain.estimate.verdict import HOLDS, TIGHT, judge

# Between two of these the exact number is searched for, where one does and the other does not.
NODES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
MORE_NODES = (192, 256, 384, 512, 768, 1024)  # only where no fewer meet the goals


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One row of the table.

    Args:
        meets: by the expected values; `certain`: over the whole band.
    """

    estimate: Estimate
    meets: bool
    certain: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """Args:
    choices: those that meet every goal first, the cheapest first; then the quickest first.
    left_out: what could not be estimated, and why.
    """

    choices: tuple[Choice, ...]
    left_out: tuple[str, ...]


def sweep(asked: Asked) -> Sweep:
    """Return the job on 1 to 128 (or more) of each GPU's machines; --gpu, --instance narrow it.

    Raises:
        ConfigError: naming everything that is wrong.
        BenchError: a measured run that would be taken claims over 100 % MFU.
    """
    errors = Errors()
    asked = check_counts(asked, errors)
    goals = read_goals(asked, errors)
    prices = errors.attempt(read_prices, asked.prices)
    gpus = errors.attempt(_wanted_gpus, asked)
    first = gpus[0] if gpus else None
    config = errors.attempt(read_config, asked, first)
    if config is not None:
        errors.attempt(read_job, asked, config)
        errors.attempt(check_exchange, config, NODES[-1])
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
            priced = any(_machines(prices, gpu, asked.instance))
            why = (
                f"the global batch of {job.global_sequences} sequences has none for every GPU of "
                "any machine" if priced else "no machine with it has a price"
            )  # fmt: skip
            left_out.append(f"{gpu.name}: {why}")
    return Sweep(choices=tuple(sorted(choices, key=_order)), left_out=tuple(left_out))


def _wanted_gpus(asked: Asked) -> list[Gpu]:
    if asked.instance is not None:
        return [find_node_kind(asked.instance).gpu]
    return [find_gpu(asked.gpu)] if asked.gpu is not None else list(read_gpus().values())


def _choices(
    asked: Asked, job: Job, gpu: Gpu, assumptions: Assumptions, goals: Goals
) -> Iterator[Choice]:
    for machine in _machines(assumptions.prices, gpu, asked.instance):
        kind = find_node_kind(machine)

        @functools.cache
        def choose(nodes: int, kind: NodeKind = kind) -> Choice | None:
            cluster = plan_cluster(gpu, nodes * kind.gpus, None, kind, None)
            try:
                estimate = plan_estimate(job, cluster, assumptions)
            except ConfigError:  # fewer sequences than GPUs
                return None
            held = meets(estimate, goals)
            certain = held
            if held and goals != Goals():  # else no band is needed, which takes time
                certain = all(each.kind in (HOLDS, TIGHT) for each in judge(estimate, goals))
            return Choice(estimate=estimate, meets=held, certain=certain)

        yield from _sizes(choose, _grid(job, kind))


def _machines(prices: Mapping[str, Any], gpu: Gpu, instance: str | None) -> Iterator[str]:
    """Yield the machines that are priced: of each provider the cheapest of each size."""
    cheapest: dict[tuple[str, int], tuple[float, str]] = {}
    for provider, machine, gpus, usd in priced_machines(prices, gpu):
        if instance is None or machine == instance.strip().lower():
            known = cheapest.get((provider, gpus), (usd, machine))
            cheapest[provider, gpus] = min(known, (usd, machine))
    yield from (machine for _, machine in cheapest.values())


def _grid(job: Job, kind: NodeKind) -> list[int]:
    """Return the numbers of nodes that are tried, up to what the global batch has sequences for."""
    if job.global_sequences is None:
        return [*NODES, *MORE_NODES]
    most = job.global_sequences // kind.gpus
    return sorted({nodes for nodes in (*NODES, *MORE_NODES, most) if nodes <= most} - {0})


def _sizes(choose: Callable[[int], Choice | None], grid: list[int]) -> Iterator[Choice]:
    """Yield the choices of one machine: every size of the grid, and the fewest that meet."""
    below, met = 0, False
    for nodes in grid:
        if nodes > NODES[-1] and met:
            return
        choice = choose(nodes)
        if choice is None:
            return
        if choice.meets and not met:
            met = True
            fewest = choose(_fewest(choose, below, nodes))
            if fewest is not None and fewest is not choice:
                yield fewest
        below = nodes
        if nodes <= NODES[-1] or choice.meets:
            yield choice


def _fewest(choose: Callable[[int], Choice | None], below: int, enough: int) -> int:
    """Return the fewest nodes that meet the goals: more than `below` do, `enough` at the most."""
    while enough - below > 1:
        middle = (below + enough) // 2
        choice = choose(middle)
        below, enough = (below, middle) if choice and choice.meets else (middle, enough)
    return enough


def _order(choice: Choice) -> tuple[bool, float]:
    estimate = choice.estimate
    if choice.meets and estimate.usd is not None:
        return False, estimate.usd
    return True, estimate.expected_s
