"""Faults for rehearsal: a pulled cable, a silent or slow link, a slow or dead node."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterRecord
from hpctrain.clusters.lab.build import take_steps
from hpctrain.clusters.lab.cpu import free_cpu, limit_cpu
from hpctrain.clusters.lab.facts import check_machine, search_path
from hpctrain.clusters.lab.find import find_inits, find_processes, words_of
from hpctrain.clusters.lab.names import NODE_LINK, SWITCH, Space, switch_port
from hpctrain.clusters.lab.network import Step, plan_shaping
from hpctrain.clusters.lab.options import LabOptions, node_number, options_from_json
from hpctrain.clusters.lab.owner import refuse_others_lab
from hpctrain.clusters.lab.plan import CABLE, NETEM
from hpctrain.clusters.lab.remove import kill_and_wait
from hpctrain.clusters.lab.shape import OFF, parse_bandwidth, parse_cpu_share, render_bandwidth
from hpctrain.errors import ClusterError, ConfigError, did_you_mean, raise_all
from hpctrain.executor import LocalExecutor

# word → what it does, for --help and for messages
FAULTS: Mapping[str, str] = {
    "link-down": "pull the cable: the node sees it, the others only hear nothing",
    "drop": "lose everything it sends and is sent; its link stays up",
    "isolate": "the other nodes do not hear it any more, this machine still does",
    "link-up": "undo these three",
    "poweroff": "end everything in the node at once, without a farewell on the network",
    "slow=RATE": "give its link another bandwidth, such as 50mbit; slow=off undoes it",
    "cpu=SHARE": "leave it a share of this machine's cores, such as 20%; cpu=off undoes it",
}
STP_DISABLED, STP_FORWARDING = "0", "3"  # BR_STATE_* of linux/if_bridge.h
NOBODY = "02:00:00:00:00:00"  # an Ethernet address that no node has
NOTES = "faults.json"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault as a value: `bit_per_s` and `share` are None where they are undone."""

    word: str
    kind: str
    bit_per_s: float | None = None
    share: float | None = None


def parse_faults(words: Sequence[str]) -> list[Fault]:
    """Return the faults that words name.

    >>> [fault.kind for fault in parse_faults(["slow=50mbit", "cpu=off"])]
    ['slow', 'cpu']

    Raises:
        ConfigError: with every word that names none.
    """
    errors: list[str] = []
    faults = []
    plain = [word for word in FAULTS if "=" not in word]
    for word in words:
        kind, equals, value = word.partition("=")
        if not equals and kind in plain:
            faults.append(Fault(word, kind))
        elif equals and kind == "slow":
            rate = None if value == OFF else parse_bandwidth(value, "slow", errors)
            faults.append(Fault(word, kind, bit_per_s=rate))
        elif equals and kind == "cpu":
            share = None if value == OFF else parse_cpu_share(value, "cpu", errors)
            faults.append(Fault(word, kind, share=None if share == 1 else share))
        else:
            hint = did_you_mean(kind, [*plain, "slow", "cpu"])
            errors.append(
                f"no such fault, got '{word}'; expected one of {', '.join(FAULTS)}.{hint}"
            )
    raise_all(ConfigError, errors)
    return faults


def apply_faults(
    directory: ClusterDirectory,
    record: ClusterRecord,
    node_word: str,
    faults: Sequence[Fault],
    environ: Mapping[str, str],
) -> list[str]:
    """Bring faults about, with the directory locked; return what is so now, in words.

    Raises:
        ConfigError: no such node.
        ClusterError: the node is off or another's, or a step fails.
    """
    check_machine(environ)
    refuse_others_lab(directory)
    options = options_from_json(record.provider_data["options"])
    errors: list[str] = []
    number = node_number(node_word, options.nodes, "NODE", errors, prefix=f"{record.name}-")
    raise_all(ConfigError, errors)
    node = f"n{number}"
    if node not in find_inits(record.name):
        raise ClusterError(
            f"{record.name}-{node}: it is off; expected a node that runs. Start it again: "
            f"hpctrain cluster up --name {record.name}"
        )
    path = search_path(environ)
    said = []
    for fault in faults:
        if fault.kind == "cpu":
            how = _change_cpu(record.name, node, fault.share, path)
        elif fault.kind == "poweroff":
            take_steps(LocalExecutor(), plan_link_fault(record, node, "link-down"), path)
            kill_and_wait([p for p in find_processes(record.name) if p.space.node == node])
            how = "off. Start it again: hpctrain cluster up --name " + record.name
        elif fault.kind == "slow":
            take_steps(LocalExecutor(), _plan_slow(record.name, node, options, fault), path)
            rate = fault.bit_per_s or options.shape_of(node).bandwidth_bit_per_s
            how = f"its link carries {render_bandwidth(rate)}"
        else:
            take_steps(LocalExecutor(), plan_link_fault(record, node, fault.kind), path)
            how = FAULTS[fault.kind]
        said.append(f"{record.name}-{node}: {fault.word}: {how}")
        note_fault(directory, node, fault)
    return said


def plan_link_fault(record: ClusterRecord, node: str, kind: str) -> list[Step]:
    """Return the steps of a fault of a link, or of its end; pure."""
    switch, space, port = Space(record.name, SWITCH), Space(record.name, node), switch_port(node)
    ip_there = ("ip", "-n", switch.name, "link", "set", port)
    # Of a pair the kernel takes the node's end down as well; a TAP's must be told.
    carrier = ("ip", "-n", space.name, "link", "set", NODE_LINK, "carrier")
    others = [n.address for n in record.nodes if n.name != f"{record.name}-{node}"]
    words = {"isolate": f"replace {{}} lladdr {NOBODY} nud permanent", "link-up": "del {}"}
    line = f"neigh {words.get(kind, '')} dev {NODE_LINK}\n"
    neighbours = Step(
        ("ip", "-n", space.name, "-force", "-batch", "-"),
        "".join(line.format(address) for address in others),
        may_fail=kind == "link-up",
    )
    bridge = ("bridge", "-n", switch.name, "link", "set", "dev", port, "state")
    if kind == "link-down":
        return [Step((*ip_there, "down")), Step((*carrier, "off"), may_fail=True)]
    if kind == "drop":
        return [Step((*bridge, STP_DISABLED))]
    if kind == "isolate":
        return [neighbours]
    return [
        Step((*carrier, "on"), may_fail=True),
        Step((*ip_there, "up")),
        Step((*bridge, STP_FORWARDING), may_fail=True),
        neighbours,
    ]


def note_fault(directory: ClusterDirectory, node: str, fault: Fault) -> None:
    """Write down what was done to a node, for ``status``; an undoing strikes out what it undid."""
    undone = {"link-up": {"link-down", "drop", "isolate"}}.get(fault.kind, {fault.kind})
    is_undoing = fault.kind == "link-up" or (
        fault.word.endswith("=off") or fault.word == "cpu=100%"
    )
    kept = [word for word in read_faults(directory, node) if word.partition("=")[0] not in undone]
    notes = directory.path / "nodes" / node / NOTES
    notes.write_text(json.dumps([*kept, *([] if is_undoing else [fault.word])]))


def read_faults(directory: ClusterDirectory, node: str) -> list[str]:
    """Return the faults that a node has."""
    try:
        return list(json.loads((directory.path / "nodes" / node / NOTES).read_text()))
    except (OSError, ValueError):
        return []


def forget_faults(directory: ClusterDirectory, node: str) -> None:
    """Strike out all faults of a node that was made or connected anew."""
    (directory.path / "nodes" / node / NOTES).unlink(missing_ok=True)


def _plan_slow(lab: str, node: str, options: LabOptions, fault: Fault) -> list[Step]:
    shape = options.shape_of(node)
    shape = replace(shape, bandwidth_bit_per_s=fault.bit_per_s or shape.bandwidth_bit_per_s)
    is_cable = any(
        each.space.node == SWITCH and switch_port(node) in words_of(each.pid)
        for each in find_processes(lab)
    )
    return plan_shaping(lab, node, shape, CABLE if is_cable else NETEM)


def _change_cpu(lab: str, node: str, share: float | None, path: str) -> str:
    free_cpu(lab, node)
    if share is None:
        return "all cores"
    return f"{share * 100:.3g} % of the cores, {limit_cpu(lab, node, share, path)}"
