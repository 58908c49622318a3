"""The commands that make a lab's network: switch, cables, their shape. Pure.

The switch is a bridge in a namespace of its own. A node's cable is a pair of linked interfaces,
eth0 in the node and to-NODE at the switch; where packets are to be delayed or lost and the kernel
has no netem, both are ends of a process of ours (cable.py). One more pair leads to this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hpctrain.clusters.lab.names import (
    BRIDGE,
    NODE_LINK,
    SWITCH,
    UPLINK_PORT,
    Space,
    link_mark,
    mac_address,
    machine_link,
    switch_port,
)
from hpctrain.clusters.lab.plan import CABLE, NETEM, LabNode, LabPlan
from hpctrain.clusters.lab.shape import Shape

# A token bucket holds what may go out at once: 2 ms, but a full-sized packet or two at least.
BURST_S, MIN_BURST_BYTES = 0.002, 16_000
LARGEST_GSO_BYTES = 65536
QUEUE_S = 0.05  # of a switch's buffer: what waits longer is dropped
PACKET_BYTES = 1500


class Step(NamedTuple):
    """A command of iproute2 and what it reads; `may_fail`: it undoes what may not be there."""

    argv: tuple[str, ...]
    stdin: str = ""
    may_fail: bool = False


def plan_switch(plan: LabPlan, pid: int) -> list[Step]:
    """Return the steps that make the switch and this machine's link to it.

    Args:
        pid: a process of this machine's own network.
    """
    switch, link = Space(plan.name, SWITCH), machine_link(plan.name)
    prefix = plan.subnet.partition("/")[2]
    return [
        Step(("ip", "netns", "add", switch.name)),
        _batch(
            switch,
            "link set lo up",
            f"link add {BRIDGE} type bridge mcast_snooping 0",
            f"link set {BRIDGE} up",
        ),
        _no_ipv6(switch, BRIDGE),
        # Marked before it comes here: never is there a link of ours that one cannot know for ours.
        Step(("ip", "-n", switch.name, "link", "add", link, "type", "veth",
              "peer", "name", UPLINK_PORT)),
        Step(("ip", "-n", switch.name, "link", "set", link,
              "alias", link_mark(plan.name, plan.folder))),
        Step(("ip", "-n", switch.name, "link", "set", link, "netns", str(pid))),
        _no_ipv6(None, link),
        _no_ipv6(switch, UPLINK_PORT),
        _batch(switch, f"link set {UPLINK_PORT} master {BRIDGE} up"),
        _batch(
            None,
            f"addr add {plan.machine_address}/{prefix} dev {link}",
            f"link set {link} up",
        ),
    ]  # fmt: skip


def plan_pair(plan: LabPlan, node: LabNode) -> list[Step]:
    """Return the steps that make a node's cable of a pair of the kernel's own."""
    switch, space = Space(plan.name, SWITCH), Space(plan.name, node.name)
    return [
        Step(("ip", "-n", switch.name, "link", "add", switch_port(node.name), "type", "veth",
              "peer", "name", NODE_LINK, "netns", space.name)),
    ]  # fmt: skip


def plan_plug(plan: LabPlan, node: LabNode) -> list[Step]:
    """Return the steps that bring both ends of a new cable to life."""
    switch, space, port = (
        Space(plan.name, SWITCH),
        Space(plan.name, node.name),
        switch_port(node.name),
    )
    prefix = plan.subnet.partition("/")[2]
    return [
        _no_ipv6(switch, port),
        _no_ipv6(space, NODE_LINK),
        _batch(switch, f"link set {port} master {BRIDGE} up"),
        _batch(
            space,
            "link set lo up",
            f"link set {NODE_LINK} address {mac_address(node.address)}",
            f"addr add {node.address}/{prefix} dev {NODE_LINK}",
            f"link set {NODE_LINK} up",
        ),
    ]


def plan_unplug(lab: str, node: str) -> list[Step]:
    """Return the steps that take a node's cable away."""
    switch = Space(lab, SWITCH)
    return [
        Step(("ip", "-n", switch.name, "link", "del", switch_port(node)), may_fail=True),
        Step(("ip", "-n", Space(lab, node).name, "link", "del", NODE_LINK), may_fail=True),
    ]


def plan_shaping(lab: str, node: str, shape: Shape, delay_by: str) -> list[Step]:
    """Return the steps that give a node's link its bandwidth, and with netem the rest too."""
    switch, space = Space(lab, SWITCH).name, Space(lab, node).name
    rate = shape.bandwidth_bit_per_s
    sends, hears = ("-n", space), ("-n", switch)
    is_cable = shape.delays_or_loses and delay_by == CABLE
    burst_bytes = _burst_bytes(rate, is_cable=is_cable) if rate else LARGEST_GSO_BYTES
    to_node = _rate_limit(rate, burst_bytes) if rate else ()
    if shape.delays_or_loses and delay_by == NETEM:
        from_node: tuple[str, ...] = _netem(shape)
    else:
        from_node = to_node
    return [
        *_qdisc(sends, NODE_LINK, from_node),
        *_qdisc(hears, switch_port(node), to_node),
        # Else the kernel hands over up to 64 KiB as one packet, and loses all of it at once.
        Step(("ip", "-n", space, "link", "set", NODE_LINK,
              "gso_max_segs", "1" if shape.loss else "65535",
              # What is larger than the bucket would be cut into packets again, at a price.
              "gso_max_size", str(min(LARGEST_GSO_BYTES, burst_bytes))), may_fail=not shape.loss),
    ]  # fmt: skip


def _qdisc(where: tuple[str, str], link: str, words: Sequence[str]) -> list[Step]:
    if not words:
        return [Step(("tc", *where, "qdisc", "del", "dev", link, "root"), may_fail=True)]
    return [
        # What another kind has queued is not taken over: begin anew.
        Step(("tc", *where, "qdisc", "del", "dev", link, "root"), may_fail=True),
        Step(("tc", *where, "qdisc", "add", "dev", link, "root", *words)),
    ]


def _rate_limit(bit_per_s: float, burst_bytes: int) -> tuple[str, ...]:
    """Return tc-tbf(8)'s words for a rate."""
    limit_bytes = burst_bytes + max(int(bit_per_s / 8 * QUEUE_S), 10 * PACKET_BYTES)
    rate = f"{bit_per_s:.0f}bit"
    return ("tbf", "rate", rate, "burst", str(burst_bytes), "limit", str(limit_bytes))


def _burst_bytes(bit_per_s: float, *, is_cable: bool) -> int:
    """Return what a bucket holds. A cable that is a process keeps to the rate by itself, and its
    packets cost it the less the larger they are."""
    least = LARGEST_GSO_BYTES + PACKET_BYTES if is_cable else MIN_BURST_BYTES
    return max(int(bit_per_s / 8 * BURST_S), least)


def _netem(shape: Shape) -> tuple[str, ...]:
    """Return tc-netem(8)'s words for a shape; it limits the rate as well."""
    rate, latency_s = shape.bandwidth_bit_per_s, shape.latency_s or 0.0
    in_flight = (rate or 1e10) / 8 * (latency_s + QUEUE_S) / PACKET_BYTES
    return (
        "netem",
        *(("delay", f"{latency_s * 1e6:.0f}us") if latency_s else ()),
        *(("loss", f"{(shape.loss or 0.0) * 100:.6g}%") if shape.loss else ()),
        *(("rate", f"{rate:.0f}bit") if rate else ()),
        "limit",
        str(max(1000, int(in_flight))),
    )


def _no_ipv6(space: Space | None, link: str) -> Step:
    """Keep a link from choosing an IPv6 address and talking about it; fails where none would."""
    where = ("-n", space.name) if space else ()
    return Step(("ip", *where, "link", "set", link, "addrgenmode", "none"), may_fail=True)


def _batch(space: Space | None, *lines: str) -> Step:
    where = ("-n", space.name) if space else ()
    return Step(("ip", *where, "-batch", "-"), "".join(f"{line}\n" for line in lines))
