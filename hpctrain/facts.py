"""What a plan must know about machines, as frozen values; and the parsers that make them.

Nothing here touches a machine: `probe.py` does, and hands the captured text to these parsers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

# Bridges and tunnels that exist on many hosts with the same address: never a way to another one.
VIRTUAL_INTERFACE_PREFIXES = (
    "lo", "docker", "virbr", "veth", "br-", "cni", "flannel", "cali", "kube", "tailscale", "podman",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface that is up; addresses with prefix length, like ``10.0.0.7/24``.

    `driver` is the kernel's name of it, such as ``gve`` of Google's gVNIC; "" where there is none.
    """

    name: str
    addresses: tuple[str, ...]
    driver: str = ""

    @property
    def is_virtual(self) -> bool:
        return self.name.startswith(VIRTUAL_INTERFACE_PREFIXES)


@dataclass(frozen=True, slots=True)
class RdmaPort:
    """An RDMA device's port in state ACTIVE; `link_layer` is InfiniBand, Ethernet or EFA's
    Unspecified."""

    device: str
    port: int
    link_layer: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What one machine is. Counts are those that this user's processes may use.

    Args:
        cloud: ``aws``, ``gcp`` or ``azure``.
        instance_type: the cloud's name of the machine, such as ``p4d.24xlarge``.
        versions: ``nccl``, ``aws-ofi-nccl`` and ``libfabric``, those that are installed.
        gpu_link: between its GPUs, ``nvlink`` or ``pcie``; None with one GPU or where unknown.
        gpu_p2p: whether each GPU reads the memory of each other one; None likewise.
    """

    hostname: str
    cores: int
    gpus: tuple[str, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    rdma_ports: tuple[RdmaPort, ...] = ()
    user_id: int = 1000
    cloud: str | None = None
    probed_at_s: float = 0.0
    instance_type: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    gpu_link: str | None = None
    gpu_p2p: bool | None = None

    def age_s(self, now_s: float) -> float:
        """Return how long ago the machine was asked; 0 where nobody says."""
        return max(0.0, now_s - self.probed_at_s) if self.probed_at_s and now_s else 0.0

    @property
    def default_slots(self) -> int:
        """Slots where nobody says how many: the GPUs, else the cores."""
        return len(self.gpus) or self.cores

    def networks(self) -> list[str]:
        """Return the networks (CIDR) of the interfaces that may lead to other hosts."""
        return [
            str(ipaddress.ip_interface(address).network)
            for interface in self.interfaces
            if not interface.is_virtual
            for address in interface.addresses
            if not ipaddress.ip_interface(address).is_link_local
        ]

    def single_addresses(self) -> dict[str, list[str]]:
        """Return the interfaces whose IPv4 address is a network of its own (/32), as on Google
        Cloud, with those addresses."""
        found: dict[str, list[str]] = {}
        for interface in self.interfaces:
            if not interface.is_virtual:
                parsed = map(ipaddress.ip_interface, interface.addresses)
                single = [str(a.ip) for a in parsed if a.version == 4 and a.network.prefixlen == 32]
                found.update({interface.name: single} if single else {})
        return found

    def interface_in(self, network: str) -> str | None:
        """Return the name of the interface that has an address in a network (CIDR)."""
        wanted = ipaddress.ip_network(network)
        for interface in self.interfaces:
            if any(ipaddress.ip_interface(a).ip in wanted for a in interface.addresses):
                return interface.name
        return None

    def has_global_ipv6_beside(self, network: str) -> bool:
        """Return whether the interface in a network also has an IPv6 address of wider scope."""
        name = self.interface_in(network)
        addresses = [a for i in self.interfaces if i.name == name for a in i.addresses]
        parsed = [ipaddress.ip_interface(address) for address in addresses]
        return any(a.version == 6 and not a.is_link_local for a in parsed)

    def owns(self, address: str) -> bool:
        """Return whether an address (without prefix length) is this machine's."""
        own = {a.partition("/")[0] for i in self.interfaces for a in i.addresses}
        return address in own or ipaddress.ip_address(address).is_loopback


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a launch plan may depend on besides the request.

    Args:
        launcher: the machine that runs mpirun.
        mpi_flavour: ``openmpi4``, ``openmpi5``, ``mpich`` or ``intelmpi``.
        mpi_version: such as ``5.0.11``.
        mpirun: its absolute path.
        mpi_source: where it was found, in words.
        hosts: facts of other hosts, as far as they are known.
        addresses: host name → addresses, as far as this machine's resolver knows them.
        has_ssh: whether an ssh client is on PATH.
        mpi_has_ucx: whether this MPI was built with UCX; asked only where there are RDMA ports.
        now_s: when the facts were gathered (Unix time), to tell the age of others.
    """

    launcher: HostFacts
    mpi_flavour: str
    mpi_version: str
    mpirun: str
    mpi_source: str = ""
    hosts: Mapping[str, HostFacts] = field(default_factory=dict)
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    has_ssh: bool = True
    mpi_has_ucx: bool = False
    now_s: float = 0.0

    def is_launcher(self, host: str) -> bool:
        """Return whether a host name means the launching machine."""
        own = self.launcher.hostname
        if host in ("localhost", "localhost.localdomain", own, own.partition(".")[0]):
            return True
        known = self.addresses.get(host) or ((host,) if is_address(host) else ())
        return any(self.launcher.owns(address) for address in known)

    def any_gpus(self, hosts: Sequence[str]) -> bool:
        """Return whether one of these hosts is known to have GPUs."""
        return any(known.gpus for host in hosts if (known := self.of(host)) is not None)

    def of(self, host: str) -> HostFacts | None:
        """Return what is known of a host."""
        return self.launcher if self.is_launcher(host) else self.hosts.get(host)


def is_address(text: str) -> bool:
    """Return whether `text` is an IP address rather than a name.

    >>> is_address("::1"), is_address("node1")
    (True, False)
    """
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def parse_gpu_list(text: str) -> tuple[str, ...]:
    """Parse the output of ``nvidia-smi -L`` into GPU names.

    >>> parse_gpu_list("GPU 0: NVIDIA H200 (UUID: GPU-5a7b)\\n")
    ('NVIDIA H200',)
    """
    gpus = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("GPU ")]
    return tuple(line.partition(" (UUID")[0].strip() for line in gpus)


def parse_visible_devices(text: str | None, gpus: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the GPUs that a value of ``CUDA_VISIBLE_DEVICES`` leaves.

    CUDA ignores everything from the first entry on that names no device. An entry by UUID may
    be a slice of a GPU (MIG), so there can be more of them than GPUs.

    >>> gpus = ("A100", "T4")
    >>> parse_visible_devices("1,0", gpus), parse_visible_devices("0,-1,1", gpus)
    (('T4', 'A100'), ('A100',))
    >>> parse_visible_devices("", gpus), parse_visible_devices(None, gpus)
    ((), ('A100', 'T4'))
    """
    if text is None or not gpus:
        return tuple(gpus)
    visible = []
    for entry in map(str.strip, text.split(",")):
        if entry.isascii() and entry.isdigit() and int(entry) < len(gpus):
            visible.append(gpus[int(entry)])
        elif entry.startswith(("GPU-", "MIG-")):
            visible.append(gpus[0] if len(set(gpus)) == 1 else entry)
        else:
            break
    return tuple(visible)


def parse_rdma_port_state(text: str) -> bool:
    """Return whether ``/sys/class/infiniband/*/ports/*/state`` says that the port is usable.

    >>> parse_rdma_port_state("4: ACTIVE"), parse_rdma_port_state("1: DOWN")
    (True, False)
    """
    return text.strip().endswith("ACTIVE")


def host_facts_as_json(facts: HostFacts) -> dict[str, Any]:
    """Return facts as JSON-ready values, for the cache and for a probe's answer."""
    return asdict(facts)


def host_facts_from_json(value: Any) -> HostFacts:
    """Return the facts that :func:`host_facts_as_json` wrote.

    Raises:
        ValueError: a field is missing, unknown or of another type.
    """
    import msgspec

    facts = msgspec.convert(value, HostFacts)
    known = {field.name for field in fields(HostFacts)}
    if set(value) - known:
        raise ValueError(f"unknown fields: {', '.join(sorted(set(value) - known))}")
    for interface in facts.interfaces:
        for address in interface.addresses:
            ipaddress.ip_interface(address)
    return facts
