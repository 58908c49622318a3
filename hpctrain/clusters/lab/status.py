"""How is a lab? Asked of the kernel and of each node's sshd."""

from __future__ import annotations

import os

from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterRecord
from hpctrain.clusters.lab.build import answers_ssh
from hpctrain.clusters.lab.faults import read_faults
from hpctrain.clusters.lab.find import find_inits, find_nodes, has_machine_link
from hpctrain.clusters.lab.options import options_from_json
from hpctrain.clusters.lab.owner import describe_other_owner, find_other_owner
from hpctrain.clusters.lab.remove import find_leftovers
from hpctrain.clusters.lab.shape import render_shape
from hpctrain.clusters.provider import ClusterStatus, NodeStatus
from hpctrain.executor import run_on_all


def lab_status(directory: ClusterDirectory) -> ClusterStatus:
    """Look at a lab; its directory need not exist.

    Raises:
        ClusterError: its record cannot be read.
    """
    name = directory.name
    if os.geteuid() != 0:
        lines: tuple[str, ...] = ("only root can look at it. Use sudo.",)
        return ClusterStatus(name, "lab", "unknown", (), (), lines)
    if owner := find_other_owner(directory):
        return ClusterStatus(name, "lab", "another's", lines=(describe_other_owner(name, owner),))
    record = directory.read()
    there = find_leftovers(name)
    down = f"Remove it: hpctrain cluster down --name {name}"
    if record is None:
        lines = (f"found without a record. {down}",) if there else ()
        return ClusterStatus(name, "lab", "leftover" if there else "down", (), tuple(there), lines)
    if record.state != "up":
        state = record.state if directory.is_locked() else "half-made"
        lines = () if state == record.state else (f"its making was cut off. {down}",)
        return ClusterStatus(name, "lab", state, (), tuple(there), lines)
    if not there:
        again = f"Make it again: hpctrain cluster up --name {name}. {down}"
        lines = (f"nothing of it is there any more: this machine was restarted? {again}",)
        return ClusterStatus(name, "lab", "gone", (), (), lines)
    nodes = _nodes(directory, record)
    known = {node.name for node in nodes}
    strange = [f"node {node}" for node in find_nodes(name) if f"{name}-{node}" not in known]
    whole = has_machine_link(name) and all(node.state == "up" for node in nodes)
    lines = (f"network {record.provider_data['subnet']}, hostfile {directory.hostfile}",)
    return ClusterStatus(name, "lab", "up" if whole else "degraded", nodes, tuple(strange), lines)


def _nodes(directory: ClusterDirectory, record: ClusterRecord) -> tuple[NodeStatus, ...]:
    options = options_from_json(record.provider_data["options"])
    inits = find_inits(record.name)
    answers = run_on_all(answers_ssh, [node.address for node in record.nodes])
    found = []
    for node, answer in zip(record.nodes, answers, strict=True):
        short = node.name.removeprefix(f"{record.name}-")
        state = "off" if short not in inits else "up" if answer else "no answer"
        faults = read_faults(directory, short) if short in inits else []
        detail = render_shape(options.shape_of(short))
        detail += f"; faults: {', '.join(faults)}" if faults else ""
        found.append(NodeStatus(node.name, node.address, node.slots, state, detail))
    return tuple(found)
