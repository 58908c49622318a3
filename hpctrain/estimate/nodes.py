"""Which nodes a cluster is made of: a vendor's machine, or one's own with a given link."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from hpctrain.clusters.cloud.machines import read_machines
from hpctrain.errors import ConfigError, did_you_mean, raise_all
from hpctrain.estimate.gpus import Gpu, find_gpu, find_gpu_of_machine
from hpctrain.estimate.money import ATTACHED, CPUS_A_GPU, attached_name
from hpctrain.estimate.quantities import read_link
from hpctrain.estimate.speed import Cluster
from hpctrain.scaling_model.instances import (
    as_line_rate,
    find_instance,
    instance_names,
    published_link,
)
from hpctrain.scaling_model.links import Link

DEFAULT_LINK = "100gbit,20us"
LARGEST_NODE = 8  # GPUs of a node where nobody says
_CLOUD_LATENCY_S = 14e-6  # as hpctrain/scaling_model/nics.toml has for networks
# GCP's N1 machines, out of the machine; with some GPUs and more CPUs it is more.
_GBIT_A_CPU, _MOST_GBIT = 2.0, 32.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeKind:
    """A machine that can be rented, as far as an estimate needs it."""

    name: str
    gpu: Gpu
    gpus: int
    inter: Link
    intra: Link


def node_kind_names() -> list[str]:
    """Return every machine that is known with a GPU that is known."""
    ours = {
        machine
        for (_, machine), facts in read_machines().items()
        if find_gpu_of_machine(facts.gpu) is not None
    }
    return sorted(ours | set(instance_names()))


def find_node_kind(name: str) -> NodeKind:
    """Return a machine by its vendor's name: its network from the scaling model's table, else the
    line rate that the Terraform modules' table has.

    Raises:
        ConfigError: it is in neither.
    """
    wanted = name.strip().lower()
    if wanted in instance_names():
        found = find_instance(wanted)
        limits = f"; one TCP flow has {found.flow_gbit:g} Gbit/s" if found.flow_gbit else ""
        limits += "; the rate holds for a short time only" if found.bursts else ""
        return NodeKind(
            name=wanted, gpu=find_gpu(found.gpu), gpus=found.gpus,
            inter=replace(found.link, source=found.link.source + limits),
            intra=found.intra,
        )  # fmt: skip
    for (_, machine), facts in read_machines().items():
        gpu = find_gpu_of_machine(facts.gpu)
        if machine == wanted and gpu is not None:
            inter = published_link(_CLOUD_LATENCY_S, facts.network_gbps, f"{machine}, machines.csv")
            return NodeKind(name=machine, gpu=gpu, gpus=facts.gpus, inter=inter, intra=gpu.between)
    if (attached := _attached_kinds().get(wanted)) is not None:
        return attached
    known = node_kind_names()
    raise ConfigError(
        f"--instance: unknown machine, got '{name}'; expected one of {', '.join(known)}."
        f"{did_you_mean(wanted, known)} Or give its parts: --gpu a100-80gb --link 100gbit,20us."
    )


@functools.cache
def _attached_kinds() -> dict[str, NodeKind]:
    """Return machines to which GCP attaches GPUs, as the table of prices calls them."""
    kinds = {}
    for gpu_name, (attached, counts) in ATTACHED.items():
        for count in counts:
            cpus = CPUS_A_GPU * count
            name = attached_name(attached, count)
            rate = min(_GBIT_A_CPU * cpus, _MOST_GBIT)
            inter = published_link(
                _CLOUD_LATENCY_S, rate, f"{_GBIT_A_CPU:g} Gbit/s a CPU, at most {_MOST_GBIT:g}, "
                "cloud.google.com/compute/docs/network-bandwidth",
            )  # fmt: skip
            gpu = find_gpu(gpu_name)
            kinds[name] = NodeKind(
                name=name, gpu=gpu, gpus=count, inter=inter, intra=gpu.between
            )  # fmt: skip
    return kinds


def plan_cluster(
    gpu: Gpu, gpus: int | None, gpus_per_node: int | None, kind: NodeKind | None,
    link: str | None, intra_link: str | None = None,
) -> Cluster:  # fmt: skip
    """Return the cluster; what was not said is chosen as the options' help says.

    Raises:
        ConfigError: the GPUs do not make whole nodes, or the link cannot be read.
    """
    total = gpus or (kind.gpus if kind else 1)
    each = gpus_per_node or min(kind.gpus if kind else LARGEST_NODE, total)
    errors = []
    if total % each:
        errors.append(
            f"--gpus: no whole number of nodes, got {total} with {each} a node; expected a "
            f"multiple of {each}, e.g. {-(-total // each) * each}. Or give --gpus-per-node."
        )
    if kind is not None and each > kind.gpus:
        errors.append(
            f"--gpus-per-node: {kind.name} has fewer, got {each}; expected at most {kind.gpus}."
        )
    inter = intra = None
    try:
        inter = _inter(kind, link)
    except ConfigError as problem:
        errors += problem.messages
    try:
        intra = _intra(gpu, kind, intra_link)
    except ConfigError as problem:
        errors += problem.messages
    raise_all(ConfigError, errors)
    assert inter is not None
    assert intra is not None
    return Cluster(
        gpu=gpu, nodes=total // each, gpus_per_node=each, inter=inter, intra=intra,
        instance=kind.name if kind else None,
    )  # fmt: skip


def _intra(gpu: Gpu, kind: NodeKind | None, link: str | None) -> Link:
    if link is not None:
        return as_line_rate(read_link(link, "--intra-link"))
    return kind.intra if kind else gpu.between


def _inter(kind: NodeKind | None, link: str | None) -> Link:
    if link is not None:
        return as_line_rate(read_link(link))
    if kind is not None:
        return kind.inter
    return as_line_rate(read_link(DEFAULT_LINK, "assumption, for want of --link or --instance:"))
