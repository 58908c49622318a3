"""Ask machines what they are: this one directly, others over ssh by running this module there.

``python -m hpctrain.probe`` prints one machine's facts as JSON. What other hosts said is kept,
so that a dry run can plan for them without touching them.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpctrain.cores import count_cores
from hpctrain.errors import ProbeError, raise_all
from hpctrain.executor import Command, Executor, LocalExecutor, SshExecutor, run_on_all
from hpctrain.facts import (
    HostFacts,
    Interface,
    RdmaPort,
    host_facts_as_json,
    host_facts_from_json,
    parse_gpu_list,
    parse_rdma_port_state,
    parse_visible_devices,
)
from hpctrain.hosts import Host
from hpctrain.launch.environment import plan_import_path
from hpctrain.launch.find_mpi import cache_folder
from hpctrain.launch.ssh_config import host_alias
from hpctrain.probe_fabric import (
    probe_driver,
    probe_gpu_links,
    probe_instance_type,
    probe_versions,
)

PROBE_TIMEOUT_S = 20.0
NVIDIA_SMI_TIMEOUT_S = 15.0


def probe_this_host(
    environ: Mapping[str, str], executor: Executor | None = None, *, interfaces: bool = True
) -> HostFacts:
    """Return the facts of the machine that this runs on.

    Args:
        interfaces: False leaves out the network, which a launch on one machine never uses.
    """
    executor = executor or LocalExecutor()
    gpus, cloud = _probe_gpus(executor), _probe_cloud()
    gpu_link, gpu_p2p = probe_gpu_links(executor, len(gpus))
    return HostFacts(
        hostname=socket.gethostname(),
        cores=count_cores(),
        gpus=parse_visible_devices(environ.get("CUDA_VISIBLE_DEVICES"), gpus),
        interfaces=probe_interfaces() if interfaces else (),
        rdma_ports=_probe_rdma_ports(Path("/sys/class/infiniband")),
        user_id=os.getuid(),
        cloud=cloud,
        probed_at_s=time.time(),
        instance_type=probe_instance_type(cloud),
        versions=probe_versions(has_gpus=bool(gpus), cloud=cloud),
        gpu_link=gpu_link,
        gpu_p2p=gpu_p2p,
    )


def probe_hosts(
    hosts: Sequence[Host], ssh_options: Sequence[str], python: str = sys.executable
) -> dict[str, HostFacts]:
    """Ask every host at once over ssh, and remember the answers.

    Args:
        ssh_options: e.g. ``-F FILE``.
        python: the interpreter there; the same path as here unless told otherwise.

    Raises:
        ProbeError: naming every host that did not answer, with ssh's own last words.
    """
    command = Command((python, "-m", "hpctrain.probe"), plan_import_path(os.environ))

    def ask(host: Host) -> HostFacts | str:
        alias = host_alias(host.name)
        ssh = SshExecutor(alias, tuple(ssh_options))
        done = ssh.run(command, timeout_s=PROBE_TIMEOUT_S)
        if not done.ok:
            by_hand = " ".join(["ssh", *ssh_options, alias])
            return f"{host.name}: {done.last_words}. Try it by hand: {by_hand}"
        try:
            return host_facts_from_json(json.loads(done.stdout.splitlines()[-1]))
        except (ValueError, KeyError, TypeError, IndexError):
            noise = done.stdout.strip()[:80]
            return f"{host.name}: its answer cannot be read, got {noise!r}; expected JSON facts."

    answers = dict(zip((host.name for host in hosts), run_on_all(ask, hosts), strict=True))
    raise_all(ProbeError, [answer for answer in answers.values() if isinstance(answer, str)])
    facts = {name: answer for name, answer in answers.items() if isinstance(answer, HostFacts)}
    with contextlib.suppress(OSError):  # a home that cannot be written costs the next probe
        for host in hosts:
            _cache_path(host).parent.mkdir(parents=True, exist_ok=True)
            _write_whole(_cache_path(host), json.dumps(host_facts_as_json(facts[host.name])))
    return facts


def read_cached_facts(hosts: Sequence[Host]) -> dict[str, HostFacts]:
    """Return what earlier probes said of these hosts, as far as they were asked."""
    known = {}
    for host in hosts:
        try:
            known[host.name] = host_facts_from_json(json.loads(_cache_path(host).read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return known


def resolve_addresses(hosts: Sequence[Host]) -> dict[str, tuple[str, ...]]:
    """Return what this machine's resolver says of host names; silent on those it cannot."""

    def resolve(host: Host) -> tuple[str, ...]:
        try:
            found = socket.getaddrinfo(host.name, None, type=socket.SOCK_STREAM)
        except OSError:
            return ()
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))

    answers = run_on_all(resolve, hosts)
    return {host.name: found for host, found in zip(hosts, answers, strict=True) if found}


def facts_cache() -> Path:
    """Return the folder that keeps what other hosts said."""
    return cache_folder(os.environ) / "facts"


def _cache_path(host: Host) -> Path:
    """Return where a host's facts are kept: another user or port may be another machine."""
    parts = [host.user or "", host.name, str(host.port or "")]
    name = "_".join(part for part in parts if part)
    return facts_cache() / f"{name.replace(':', '_').replace('%', '_')}.json"


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def _probe_gpus(executor: Executor) -> tuple[str, ...]:
    # nvidia-smi can take seconds to load a driver: ask only where there is one.
    if not Path("/proc/driver/nvidia/version").exists():
        return ()
    done = executor.run(Command(("nvidia-smi", "-L")), timeout_s=NVIDIA_SMI_TIMEOUT_S)
    return parse_gpu_list(done.stdout) if done.ok else ()


def probe_interfaces() -> tuple[Interface, ...]:
    """Return the interfaces that are up and have addresses."""
    import ipaddress

    import psutil

    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    interfaces = []
    for name, entries in sorted(psutil.net_if_addrs().items()):
        addresses = [
            f"{entry.address.partition('%')[0]}/{_prefix_length(entry.netmask)}"
            for entry in entries
            if entry.family in (socket.AF_INET, socket.AF_INET6) and entry.netmask
        ]
        if name in up and addresses:
            parsed = tuple(str(ipaddress.ip_interface(a)) for a in addresses)
            interfaces.append(Interface(name, parsed, probe_driver(name)))
    return tuple(interfaces)


def _prefix_length(netmask: str) -> int:
    family = socket.AF_INET6 if ":" in netmask else socket.AF_INET
    return int.from_bytes(socket.inet_pton(family, netmask), "big").bit_count()


def _probe_rdma_ports(devices: Path) -> tuple[RdmaPort, ...]:
    ports = []
    for port in sorted(devices.glob("*/ports/*")):
        if parse_rdma_port_state(_read(port / "state")):
            device, link_layer = port.parent.parent.name, _read(port / "link_layer")
            ports.append(RdmaPort(device, int(port.name), link_layer))
    return tuple(ports)


def _probe_cloud() -> str | None:
    """Name the cloud by the machine's firmware, without asking any network."""
    vendor = " ".join(
        _read(Path("/sys/class/dmi/id") / name) for name in ("sys_vendor", "product_name")
    )
    return {"Amazon": "aws", "Google": "gcp", "Microsoft": "azure"}.get(vendor.split(" ")[0])


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


if __name__ == "__main__":
    print(json.dumps(host_facts_as_json(probe_this_host(os.environ))))
