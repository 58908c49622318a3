"""Are the same RDMA ports up on all hosts? InfiniBand, RoCE and EFA, by the kernel's own files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpctrain.facts import parse_rdma_port_state
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.fleet import Fleet, differing, not_asked
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE = "rdma"
_DEVICES = Path("/sys/class/infiniband")


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
    def kind(self) -> str:
        """What must be the same on all hosts; names of devices may differ."""
        layer = "EFA" if self.driver == "efa" else self.link_layer
        return f"{parse_rate(self.rate):g} Gb/s {layer}" if self.rate else layer


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
    """Compare the ports that are up: each host must have as many of each kind as most have."""
    for host, answer in fleet.answers.get(RDMA_PORTS.name, {}).items():
        if answer.error:
            yield not_asked(CODE, host, answer.error)
    ports = {h: read_ports(value) for h, value in fleet.answers_of(RDMA_PORTS.name).items()}
    if not any(ports.values()):
        if ports:
            yield Verdict(CODE, SKIP, "no RDMA device: TCP", hosts=tuple(ports))
        return
    up = {h: tuple(sorted(p.kind for p in known if p.is_up)) for h, known in ports.items()}
    groups = differing(up)
    # Of two halves the one with more counts: what is down is what is wrong.
    usual = max(groups, key=lambda kinds: (len(groups[kinds]), len(kinds)))
    for kinds, hosts in groups.items():
        for host in hosts:
            yield _judge_host(host, ports[host], kinds, usual, groups[usual])


def _judge_host(
    host: str, ports: Sequence[Port], kinds: Sequence[str], usual: Sequence[str],
    usual_hosts: Sequence[str],
) -> Verdict:  # fmt: skip
    down = [f"{p.device} port {p.number} ({p.state.partition(':')[2].strip() or 'unknown'})"
            for p in ports if not p.is_up]  # fmt: skip
    also = f"; not up: {', '.join(down)}" if down else ""
    found = f"{describe_kinds(kinds)} up{also}"
    if kinds != usual:
        fix = "ibstat; ibv_devinfo: cable, switch port, subnet manager; or --exclude-file"
        expected = f"{describe_kinds(usual)} up, as on {usual_hosts[0]}"
        return Verdict(CODE, FAIL, found, fix, expected, (host,))
    if not kinds:
        fix = "ibstat; a link that is down needs a cable or a subnet manager (opensm)"
        return Verdict(CODE, WARN, f"no port is up{also}: NCCL falls back to TCP", fix, "", (host,))
    return Verdict(CODE, PASS, found, hosts=(host,))


def describe_kinds(kinds: Sequence[str]) -> str:
    """Return ports in words.

    >>> describe_kinds(["200 Gb/s InfiniBand"] * 8), describe_kinds([])
    ('8 x 200 Gb/s InfiniBand', 'none')
    """
    return ", ".join(f"{n} x {kind}" for kind, n in Counter(kinds).items()) or "none"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


RDMA = Check(CODE, judge_rdma, (RDMA_PORTS,))
