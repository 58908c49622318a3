"""What a lab is to be, and what is to be done for it: options and facts in, a plan out. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpctrain.clusters.cluster_dir import ClusterNode
from hpctrain.clusters.lab.addresses import plan_lab_subnet
from hpctrain.clusters.lab.disks import describe_loss, in_order
from hpctrain.clusters.lab.facts import Disk, LabFacts
from hpctrain.clusters.lab.names import machine_link
from hpctrain.clusters.lab.options import LabOptions, parse_options
from hpctrain.clusters.lab.shape import Shape, render_shape
from hpctrain.clusters.provider import ClusterPlan, ClusterRequest
from hpctrain.errors import ClusterError, ConfigError, raise_all

MACHINE_HOST, FIRST_NODE_HOST = 1, 11
NETEM, CABLE, NONE = "netem", "cable", "none"


@dataclass(frozen=True, slots=True)
class LabNode:
    """A node: `name` is n1 …, `host_name` is what it calls itself and the hostfile calls it."""

    name: str
    host_name: str
    address: str
    slots: int
    shape: Shape


@dataclass(frozen=True, slots=True)
class LabPlan:
    """What is to be there, and the steps to it.

    Args:
        machine_address: this machine's address in the lab's network.
        delay_by: what delays and loses packets: netem, cable (a process of ours) or none.
        keeps_disks: nodes of an earlier lab of this name whose private disk is taken over.
        loses_disks: nodes whose private disk is removed.
        to_clear: whether a half-made lab of this name is removed first.
        to_stop: nodes that go, or are there without running.
        to_start: nodes that are to be made.
        to_reshape: nodes that run and get another link.
        makes_switch: whether the switch is to be made as well.
    """

    name: str
    folder: str
    working_folder: str
    machine_name: str
    search_path: str
    subnet: str
    machine_address: str
    options: LabOptions
    nodes: tuple[LabNode, ...]
    delay_by: str
    disks: tuple[Disk, ...]
    keeps_disks: tuple[str, ...]
    loses_disks: tuple[str, ...]
    to_clear: bool
    makes_switch: bool
    to_stop: tuple[str, ...]
    to_start: tuple[str, ...]
    to_reshape: tuple[str, ...]

    @property
    def changes_nothing(self) -> bool:
        return not (self.to_stop or self.to_start or self.to_reshape or self.makes_switch)

    def node(self, name: str) -> LabNode:
        """Return a node by its name."""
        return next(node for node in self.nodes if node.name == name)


def plan_lab(request: ClusterRequest, facts: LabFacts) -> ClusterPlan:
    """Plan a lab, or the changes to one that is up.

    Raises:
        ConfigError: an option is wrong, or cannot be changed while the lab is up.
        ClusterError: this machine lacks something, or has no free network, or what is there
            of this name is not ours.
    """
    raise_all(ClusterError, facts.obstacles)
    whole = facts.is_whole and facts.has_link and bool(facts.nodes)
    before = facts.before if whole else None
    options = parse_options(request.nodes, request.options, before)
    errors = _check(options, facts, before)
    raise_all(ConfigError, errors)
    subnet = facts.subnet if before is not None and facts.subnet else None
    network = ipaddress.ip_network(subnet or plan_lab_subnet(request.name, facts.networks))
    nodes = tuple(
        LabNode(
            name=f"n{number}",
            host_name=f"{request.name}-n{number}",
            address=str(network[FIRST_NODE_HOST - 1 + number]),
            slots=options.slots,
            shape=options.shape_of(f"n{number}"),
        )
        for number in range(1, options.nodes + 1)
    )
    names = [node.name for node in nodes]
    running = facts.running if before is not None else frozenset()
    reshaped = [
        node.name
        for node in nodes
        if before is not None
        and node.name in running
        and (before.shape_of(node.name) != node.shape or node.name in facts.pending)
    ]
    kept, lost = _plan_disks(facts, before, options, frozenset(names))
    plan = LabPlan(
        name=request.name,
        folder=facts.folder,
        working_folder=facts.working_folder,
        machine_name=facts.host_name,
        search_path=facts.search_path,
        subnet=str(network),
        machine_address=str(network[MACHINE_HOST]),
        options=options,
        nodes=nodes,
        delay_by=plan_delay([node.shape for node in nodes], facts),
        disks=facts.disks,
        keeps_disks=tuple(kept),
        loses_disks=tuple(lost),
        to_clear=before is None and bool(facts.nodes or facts.has_link),
        makes_switch=before is None,
        to_stop=tuple(n for n in sorted(facts.nodes) if n not in names or n not in running)
        if before is not None
        else (),
        to_start=tuple(name for name in names if name not in running),
        to_reshape=tuple(reshaped),
    )
    return ClusterPlan(
        request=request,
        nodes=tuple(ClusterNode(n.host_name, n.address, n.slots) for n in nodes),
        lines=tuple(_describe(plan)),
        as_json=_as_json(plan),
        detail=plan,
        question=f"Remove {describe_loss(lost)}?" if lost else "",
    )


def plan_delay(shapes: Sequence[Shape], facts: LabFacts) -> str:
    """Return what delays and loses packets.

    Raises:
        ClusterError: it is asked for, and this kernel has neither netem nor TUN.
    """
    if not any(shape.delays_or_loses for shape in shapes):
        return NONE
    if facts.has_netem:
        return NETEM
    if facts.has_tun:
        return CABLE
    raise ClusterError(
        "lab: this kernel cannot delay or lose packets, got neither sch_netem nor /dev/net/tun; "
        "expected one of them. Load one: modprobe sch_netem, or leave latency and loss out."
    )


def _plan_disks(
    facts: LabFacts, before: LabOptions | None, options: LabOptions, names: frozenset[str]
) -> tuple[list[str], list[str]]:
    """Return whose disk a new lab takes over from an earlier one, and whose disk is removed."""
    is_private = facts.before is not None and facts.before.private_disk
    # What is not on this machine's disk is in memory, and ends with its node.
    at_stake = facts.with_disk | (facts.running if is_private else frozenset())
    if before is not None:
        return [], in_order((at_stake & facts.nodes) - names)
    kept = facts.with_disk & names if options.private_disk else frozenset()
    return in_order(kept), in_order(at_stake - kept)


def _check(options: LabOptions, facts: LabFacts, before: LabOptions | None) -> list[str]:
    errors = []
    if before is not None and before.private_disk != options.private_disk:
        is_now = "private disks" if before.private_disk else "a shared disk"
        errors.append(
            f"private_disk: cannot be changed while the lab is up, got {options.private_disk}; "
            f"expected {before.private_disk}, for its nodes have {is_now}. Take it down first: "
            "hpctrain cluster down"
        )
    if options.private_disk and not facts.has_overlay:
        errors.append(
            "private_disk: this kernel has no overlay file system; expected it in "
            "/proc/filesystems. Load it: modprobe overlay"
        )
    if options.private_disk and set(facts.folder) & set(",:\\"):
        errors.append(
            f"private_disk: overlay's options cannot hold this path, got '{facts.folder}'; "
            "expected one without , : and \\. Choose another: XDG_STATE_HOME=/some/folder"
        )
    if facts.folder.startswith(("/run/", "/dev/", "/proc/", "/sys/")):
        errors.append(
            f"XDG_STATE_HOME: nodes have a folder of their own there, got '{facts.folder}'; "
            "expected one outside /run, /dev, /proc and /sys."
        )
    gone = [node for node in options.node_shapes if int(node[1:]) > options.nodes]
    if gone and before is None:
        errors.append(f"node.{gone[0]}: no such node; expected n1 to n{options.nodes}.")
    return errors


def _describe(plan: LabPlan) -> list[str]:
    if plan.changes_nothing:
        return [f"{plan.name}: is up as asked, {_count(plan.nodes)} in {plan.subnet}"]
    verb = "a new lab" if plan.makes_switch else "is up, and changes"
    lines = [f"{plan.name}: {verb}, {_count(plan.nodes)} in {plan.subnet}"]
    if plan.to_clear:
        lines.append("  first what is left of an earlier lab of this name is removed")
    if plan.loses_disks:
        hint = "" if plan.options.private_disk else "; --private-disk keeps them"
        lines.append(f"  {describe_loss(plan.loses_disks)}, are removed{hint}")
    if plan.keeps_disks:
        lines.append(f"  private disks of an earlier lab are kept: {', '.join(plan.keeps_disks)}")
    gone = [name for name in plan.to_stop if name not in plan.to_start]
    lines += [f"  {plan.name}-{name}  goes" for name in gone]
    for node in plan.nodes:
        what = "starts" if node.name in plan.to_start else "stays"
        what = "another link" if node.name in plan.to_reshape else what
        slots = f"{node.slots} slots" if node.slots != 1 else "1 slot"
        lines.append(
            f"  {node.host_name}  {node.address}  {slots}  {what}  {render_shape(node.shape)}"
        )
    by = {NETEM: "tc's netem", CABLE: "a process of ours: this kernel has no netem", NONE: ""}
    if by[plan.delay_by]:
        lines.append(f"  latency and loss are made by {by[plan.delay_by]}")
    disk = "each node its own" if plan.options.private_disk else "this machine's, shared by all"
    lines.append(f"  files: {disk}")
    lines.append(f"  this machine: {plan.machine_address} on {machine_link(plan.name)}")
    return lines


def _count(nodes: Sequence[LabNode]) -> str:
    return "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"


def _as_json(plan: LabPlan) -> Mapping[str, Any]:
    kept = ("name", "folder", "subnet", "machine_address", "delay_by", "keeps_disks", "loses_disks",
            "to_clear", "makes_switch",
            "to_stop", "to_start", "to_reshape")  # fmt: skip
    table = {key: value for key, value in asdict(plan).items() if key in kept}
    return {
        "schema": 1,
        "provider": "lab",
        **table,
        "private_disk": plan.options.private_disk,
        "nodes": [asdict(node) for node in plan.nodes],
    }
