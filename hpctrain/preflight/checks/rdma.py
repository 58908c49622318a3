"""Are the same RDMA ports up on all hosts? InfiniBand, RoCE and EFA, by the kernel's own files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from hpctrain.facts import parse_rdma_port_state
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.fleet import Fleet, differing, not_asked
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE = "rdma"
# Whoever has one of these means to use it; Ethernet ports may be RoCE or plain NICs.
FABRICS = ("InfiniBand", "EFA")
_DEVICES = Path("/sys/class/infiniband")


class Kind(NamedTuple):
    """What a port is: its layer (InfiniBand, Ethernet for RoCE, or EFA) and its rate, 0 for none
    known."""

    layer: str
    gb_per_s: float

    def __str__(self) -> str:
        return f"{self.gb_per_s:g} Gb/s {self.layer}" if self.gb_per_s else self.layer


@dataclass(frozen=True, slots=True)
class Port:
    """A port as /sys/class/infiniband has it, each field one file's content.

    Args:
        rate: like ``200 Gb/sec (4X HDR)``.
        driver: of the device; ``efa`` on AWS.
    """

    device: str
    number: int
    state: str
    rate: str
    link_layer: str
    driver: str = ""

    @property
    def is_up(self) -> bool:
        return parse_rdma_port_state(self.state)

    @property
    def kind(self) -> Kind:
        """What must be the same on all hosts; names of devices may differ."""
        return Kind("EFA" if self.driver == "efa" else self.link_layer, parse_rate(self.rate))


def parse_rate(text: str) -> float:
    """Return Gb/s; 0 where the text has no rate.

    >>> parse_rate("200 Gb/sec (4X HDR)"), parse_rate("2.5 Gb/sec (1X SDR)")
    (200.0, 2.5)
    """
    match = re.match(r"(\d+(?:\.\d+)?) Gb/sec", text)
    return float(match[1]) if match else 0.0


def probe_ports(devices: Path = _DEVICES) -> list[Port]:
    """Return every port of every RDMA device, up or not."""
    ports = []
    for folder in sorted(devices.glob("*/ports/*")):
        device = folder.parent.parent
        driver = (device / "device" / "driver").resolve().name
        state, rate, layer = (_read(folder / name) for name in ("state", "rate", "link_layer"))
        ports.append(Port(device.name, int(folder.name), state, rate, layer, driver))
    return ports


RDMA_PORTS = Probe("rdma-ports", lambda task: [asdict(port) for port in probe_ports()], 10.0)


def read_ports(value: Sequence[Mapping[str, Any]]) -> list[Port]:
    """Return the ports that the probe answered."""
    return [Port(**port) for port in value]


def judge_rdma(fleet: Fleet) -> Iterator[Verdict]:
    """Compare the ports that are up: no host may have fewer, or slower ones, than most."""
    for host, answer in fleet.answers.get(RDMA_PORTS.name, {}).items():
        if answer.error:
            yield not_asked(CODE, host, answer.error)
    ports = {h: read_ports(value) for h, value in fleet.answers_of(RDMA_PORTS.name).items()}
    if not any(ports.values()):
        if ports:
            yield Verdict(CODE, SKIP, "no RDMA device: TCP", hosts=tuple(ports))
        return
    up = {
        h: tuple(sorted((p.kind for p in known if p.is_up), reverse=True))
        for h, known in ports.items()
    }
    groups = differing(up)
    # Of two halves the one with more counts: what is down, or slow, is what is wrong.
    usual = max(groups, key=lambda kinds: (len(groups[kinds]), len(kinds), _sum_rates(kinds)))
    for kinds, hosts in groups.items():
        for host in hosts:
            status = _judge_difference(kinds, usual, fleet.tasks[host])
            yield _judge_host(host, ports[host], kinds, usual, groups[usual], status)


def _judge_difference(kinds: Sequence[Kind], usual: Sequence[Kind], task: NodeTask) -> str:
    """Return the status of a host whose ports that are up are not the usual ones."""
    if kinds == usual:
        return PASS
    is_less = any(
        mine < others
        for layer in {kind.layer for kind in usual}
        for mine, others in zip_longest(_rates(kinds, layer), _rates(usual, layer), fillvalue=-1.0)
    )
    # More or faster ports harm nobody, and fewer of RoCE no ranks that keep to TCP.
    over_tcp = keeps_to_tcp(task) and not any(kind.layer in FABRICS for kind in (*kinds, *usual))
    return FAIL if is_less and not over_tcp else WARN


def _rates(kinds: Sequence[Kind], layer: str) -> list[float]:
    return sorted((kind.gb_per_s for kind in kinds if kind.layer == layer), reverse=True)


def _sum_rates(kinds: Sequence[Kind]) -> float:
    return sum(kind.gb_per_s for kind in kinds)


def keeps_to_tcp(task: NodeTask) -> bool:
    """Whether NCCL is told to leave RDMA alone, by the variables that ranks get."""
    environ = task.environ
    return environ.get("NCCL_IB_DISABLE") == "1" or environ.get("NCCL_NET") == "Socket"


def _judge_host(
    host: str, ports: Sequence[Port], kinds: Sequence[Kind], usual: Sequence[Kind],
    usual_hosts: Sequence[str], status: str,
) -> Verdict:  # fmt: skip
    down = [f"{p.device} port {p.number} ({p.state.partition(':')[2].strip() or 'unknown'})"
            for p in ports if not p.is_up]  # fmt: skip
    also = f"; not up: {', '.join(down)}" if down else ""
    found = f"{describe_kinds(kinds)} up{also}"
    if status != PASS:
        fix = "ibstat; ibv_devinfo: cable, switch port, subnet manager; or --exclude-file"
        expected = f"{describe_kinds(usual)} up, as on {usual_hosts[0]}"
        return Verdict(CODE, status, found, fix, expected, (host,))
    if not kinds:
        fix = "ibstat; a link that is down needs a cable or a subnet manager (opensm)"
        return Verdict(CODE, WARN, f"no port is up{also}: NCCL falls back to TCP", fix, "", (host,))
    return Verdict(CODE, PASS, found, hosts=(host,))


def describe_kinds(kinds: Sequence[Kind]) -> str:
    """Return ports in words.

    >>> describe_kinds([Kind("InfiniBand", 200.0)] * 8), describe_kinds([])
    ('8 x 200 Gb/s InfiniBand', 'none')
    """
    return ", ".join(f"{n} x {kind}" for kind, n in Counter(kinds).items()) or "none"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


RDMA = Check(CODE, judge_rdma, (RDMA_PORTS,))
