"""Do packets of full size get from host to host, and are hosts' interfaces set alike?"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from hpctrain.executor import run_on_all
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.fleet import Fleet, differing, not_asked
from hpctrain.preflight.meetings import choose_address
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE = "mtu"
# linux/in.h and linux/in6.h; Python's socket module does not name them all.
IP_MTU_DISCOVER, IP_MTU, IP_PMTUDISC_DO = 10, 14, 2
IPV6_MTU_DISCOVER, IPV6_MTU, IPV6_PMTUDISC_DO = 23, 24, 2
HEADERS_BYTES = {socket.AF_INET: 28, socket.AF_INET6: 48}  # IP and UDP
SMALL_BYTES, LARGEST_PAYLOAD_BYTES = 64, 65507
# Where nothing listens: the other side's kernel then answers by an ICMP "port unreachable".
QUIET_PORTS = (33490, 33491)
TRIES, WAIT_S = 3, 0.4
ARRIVED, TOO_BIG, SILENCE = "arrived", "too big", "silence"


def look_at_mtu(task: NodeTask) -> list[dict[str, Any]]:
    """Send the next hosts of the ring a small packet and one of full size, not to be cut up."""
    peers = [peer["name"] for peer in task.more.get("neighbours", ())]
    return run_on_all(lambda name: _look_at_path(name, task), peers)


def _look_at_path(name: str, task: NodeTask) -> dict[str, Any]:
    address = find_address(name, task)
    if address is None:
        return {"to": name, "error": "has no address here"}
    try:
        interface, mtu, path_mtu = _outgoing(address)
    except OSError as problem:
        return {"to": name, "error": problem.strerror or str(problem)}
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    full = min(mtu - HEADERS_BYTES[family], LARGEST_PAYLOAD_BYTES)
    small = try_packet(address, SMALL_BYTES)
    return {
        "to": name, "interface": interface, "mtu": mtu, "small": small,
        "full": try_packet(address, full) if small == ARRIVED else SILENCE,
        "path_mtu": _outgoing(address)[2] or path_mtu,
    }  # fmt: skip


def try_packet(address: str, payload_bytes: int) -> str:
    """Send UDP to a port where nothing listens; the refusal that comes back proves the arrival."""
    for port in QUIET_PORTS:
        with _udp_socket(address, port) as sock:
            sock.settimeout(WAIT_S)
            for _ in range(TRIES):
                try:
                    sock.send(bytes(payload_bytes))
                    sock.recv(1)
                except ConnectionRefusedError:
                    return ARRIVED
                except TimeoutError:
                    continue
                except OSError as problem:
                    if problem.errno == errno.EMSGSIZE:
                        return TOO_BIG
                    return SILENCE
    return SILENCE


def _udp_socket(address: str, port: int) -> socket.socket:
    is_ipv6 = ":" in address
    sock = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    if is_ipv6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    sock.connect((address, port))
    return sock


def _outgoing(address: str) -> tuple[str, int, int]:
    """Return the interface towards an address, its MTU, and what the kernel knows of the path's.

    Raises:
        OSError: there is no route.
    """
    import psutil

    with _udp_socket(address, QUIET_PORTS[0]) as sock:
        own = sock.getsockname()[0].partition("%")[0]
        level, option = (
            (socket.IPPROTO_IPV6, IPV6_MTU) if ":" in address else (socket.IPPROTO_IP, IP_MTU)
        )
        path_mtu = sock.getsockopt(level, option)
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == own for entry in entries):
            return name, psutil.net_if_stats()[name].mtu, path_mtu
    return "", path_mtu, path_mtu


def find_address(name: str, task: NodeTask) -> str | None:
    """Return where a host is tried: as for a firewall, and where only its name is left, by that."""
    known = choose_address(task.hosts.get(name, ()), task.subnet, task.launcher)
    if known:
        return known
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        return choose_address([str(entry[4][0]) for entry in found], task.subnet, ())
    return None


def judge_mtu(fleet: Fleet) -> Iterator[Verdict]:
    """Say of each path that was tried what fits through it, then whether interfaces are alike."""
    mtus: dict[str, int] = {}
    interfaces: dict[str, str] = {}
    for host, answer in fleet.answers.get(CODE, {}).items():
        if answer.error:
            yield not_asked(CODE, host, answer.error)
            continue
        paths = [p for p in answer.value if p["to"] not in fleet.unreachable]
        for path in paths:
            if "mtu" in path:
                mtus[host], interfaces[host] = path["mtu"], path["interface"]
        yield _judge_paths(host, paths)
    groups = differing(mtus)
    if len(groups) > 1:
        usual, *others = groups
        for mtu in others:
            found = f"MTU {mtu}, where {len(groups[usual])} other hosts have {usual}"
            one = groups[mtu][0]
            fix = (
                "jumbo frames must be on everywhere or nowhere; "
                f"on {one}: ip link set dev {interfaces[one]} mtu {usual}"
            )
            yield Verdict(CODE, WARN, found, fix, str(usual), tuple(groups[mtu]))


def _judge_paths(host: str, paths: list[Mapping[str, Any]]) -> Verdict:
    if not paths:
        return Verdict(CODE, SKIP, "no other host to send to", hosts=(host,))
    lost = [p for p in paths if p.get("small") == ARRIVED and p["full"] == SILENCE]
    if lost:
        names = ", ".join(p["to"] for p in lost)
        found = (
            f"packets of {lost[0]['mtu']} bytes are lost on the way to {names}, small ones arrive"
        )
        fix = f"ip link set dev {lost[0]['interface']} mtu 1500, or allow ICMP on the way"
        return Verdict(CODE, FAIL, found, fix, "packets of the interface's size", (host,))
    errors = [f"to {p['to']}: {p['error']}" for p in paths if "error" in p]
    if errors:
        names = " ".join(p["to"] for p in paths if "error" in p)
        fix = f"on {host}: getent hosts {names}; ip route"
        return Verdict(CODE, WARN, "; ".join(errors), fix, "", (host,))
    narrow = [p for p in paths if p["full"] == TOO_BIG]
    if narrow:
        path = narrow[0]
        found = f"{path['path_mtu']} bytes at most fit on the way to {path['to']}"
        expected = f"{path['mtu']}, as on its {path['interface']}"
        fix = f"ip link set dev {path['interface']} mtu {path['path_mtu']}, or widen the path"
        return Verdict(CODE, WARN, found, fix, expected, (host,))
    silent = [p["to"] for p in paths if p["small"] == SILENCE]
    if silent:
        found = (
            f"interface MTU {paths[0]['mtu']}; the way to {', '.join(silent)} was not tested: no "
            "answer by UDP (a firewall?)"
        )
        return Verdict(CODE, SKIP, found, hosts=(host,))
    found = f"packets of {paths[0]['mtu']} bytes arrive whole at the next two hosts of the ring"
    return Verdict(CODE, PASS, found, hosts=(host,))


MTU = Check(CODE, judge_mtu, (Probe(CODE, look_at_mtu),), needs_hosts=True)
