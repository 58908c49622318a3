"""The facts of fabrics and GPUs that the tuning rules ask for, in words; "" where it is not so.

Pure. A rule for one cloud's machines asks for that cloud and for the very machine type, so that
its variables reach no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from hpctrain.facts import HostFacts
from hpctrain.launch.rule import Condition
from hpctrain.launch.situation import Situation

# Storage traffic goes over a bond of its own on most GPU servers.
STORAGE_BOND = "bond"
EFA_DEVICES = ("efa", "rdmap")
# The interfaces of an a3-highgpu-8g under Google's images: the host's, and one for two GPUs each.
A3_HIGH_HOST_NIC = "enp0s12"
A3_HIGH_GPU_NICS = ("enp6s0", "enp12s0", "enp134s0", "enp140s0")
HostTest: TypeAlias = Callable[[HostFacts], bool]


# -- InfiniBand and RoCE -------------------------------------------------------------------------


def compute_ports(facts: HostFacts) -> tuple[str, ...]:
    """Return the ports of the compute fabric: InfiniBand before RoCE, single ports before bonds.

    Where there is nothing but bonds, they are the fabric.

    >>> from hpctrain.facts import RdmaPort
    >>> ports = (RdmaPort("mlx5_0", 1, "InfiniBand"), RdmaPort("mlx5_bond_0", 1, "Ethernet"))
    >>> compute_ports(HostFacts("h", 1, rdma_ports=ports))
    ('mlx5_0:1',)
    """
    mellanox = [port for port in facts.rdma_ports if port.device.startswith("mlx")]
    single = [port for port in mellanox if STORAGE_BOND not in port.device]
    for layer in ("InfiniBand", "Ethernet"):
        ports = [port for port in single or mellanox if port.link_layer == layer]
        if ports:
            return tuple(f"{port.device}:{port.port}" for port in ports)
    return ()


def compute_devices(situation: Situation) -> str:
    """Return the compute fabric's ports as UCX takes them; "" where hosts differ."""
    return ",".join(situation.same_on_all(compute_ports))


def nccl_devices(situation: Situation) -> str:
    """Return NCCL_IB_HCA's value; its first "=" makes names match whole."""
    return "=" + compute_devices(situation)


def cpus_with_ucx(situation: Situation) -> str:
    """Ranks on CPUs, the same Mellanox ports everywhere, and an Open MPI that has UCX."""
    if situation.uses_gpus or not situation.is_remote or not situation.facts.mpi_has_ucx:
        return ""
    ports = compute_devices(situation)
    return f"{ports} on every host, and this Open MPI has UCX" if ports else ""


def on_infiniband(situation: Situation) -> str:
    """GPUs on several hosts, each with an active InfiniBand port."""
    ports = situation.facts.launcher.rdma_ports
    return _where_nccl_exchanges(
        situation,
        lambda facts: any(port.link_layer == "InfiniBand" for port in facts.rdma_ports),
        f"active InfiniBand ports on every host ({', '.join(p.device for p in ports)} here)",
    )


def on_roce(situation: Situation) -> str:
    """The same with RoCE, outside of clouds: those have plugins or no such network at all."""
    return _where_nccl_exchanges(
        situation,
        lambda facts: (
            facts.cloud is None
            and bool(compute_ports(facts))
            and not any(port.link_layer == "InfiniBand" for port in facts.rdma_ports)
        ),
        "active RoCE ports on every host, in no cloud",
    )


def on_ports_to_leave_out(situation: Situation) -> str:
    """On such a fabric there are RDMA ports that are not of it."""
    ports = situation.same_on_all(compute_ports)
    if not ports or not (on_infiniband(situation) or on_roce(situation)):
        return ""
    others = {
        port.device
        for facts in situation.known_hosts()
        for port in facts.rdma_ports
        if f"{port.device}:{port.port}" not in ports
    }
    return f"{', '.join(sorted(others))} are not of the compute fabric" if others else ""


# -- AWS -----------------------------------------------------------------------------------------


def on_efa(situation: Situation) -> str:
    """GPUs on several AWS hosts, each with an EFA device."""
    return _where_nccl_exchanges(
        situation,
        lambda facts: (
            facts.cloud == "aws"
            and any(port.device.startswith(EFA_DEVICES) for port in facts.rdma_ports)
        ),
        "EFA devices on every host",
    )


def on_efa_of_p4_or_p5(situation: Situation) -> str:
    """The instances whose EFA reads and writes GPU memory (RDMA)."""
    fact = on_efa(situation)
    types = _machine_types(situation, "aws", ("p4", "p5"))
    return f"{fact}, {types}" if fact and types else ""


def on_g5_or_g6(situation: Situation) -> str:
    """Several GPUs of an AWS instance without NVLink or peer access."""
    if not situation.uses_gpus or max(situation.local_ranks) < 2:
        return ""
    return _machine_types(situation, "aws", ("g5.", "g6.", "g6e."))


# -- GCP -----------------------------------------------------------------------------------------


def on_machines(cloud: str, *types: str) -> Condition:
    """Return the condition that GPUs exchange between hosts that all are of these types."""

    def condition(situation: Situation) -> str:
        return _machine_types(situation, cloud, types) if situation.exchanges_on_gpus else ""

    return condition


def on_a3_high(situation: Situation) -> str:
    """a3-highgpu-8g on several hosts, with interfaces named as Google's images name them."""
    wanted = {A3_HIGH_HOST_NIC, *A3_HIGH_GPU_NICS}
    if not situation.all_hosts(lambda facts: wanted <= {i.name for i in facts.interfaces}):
        return ""
    fact = on_machines("gcp", "a3-highgpu-8g")(situation)
    return f"{fact} on every host, with {A3_HIGH_HOST_NIC} and the GPUs' four" if fact else ""


def on_a3_high_with_other_names(situation: Situation) -> str:
    """a3-highgpu-8g under an image that names interfaces in another way."""
    fact = on_machines("gcp", "a3-highgpu-8g")(situation)
    return f"{fact}, interfaces of other names" if fact and not on_a3_high(situation) else ""


def on_gvnic_alone(situation: Situation) -> str:
    """GCP's own network card, on machines whose GPUs have no other."""
    return _where_nccl_exchanges(
        situation,
        lambda facts: (
            facts.cloud == "gcp"
            and not facts.rdma_ports
            and not (facts.instance_type or "").startswith(("a3-", "a4-"))
            and any(interface.driver == "gve" for interface in facts.interfaces)
        ),
        "gVNIC on every host",
    )


# -- GPUs ----------------------------------------------------------------------------------------


def on_gpus(situation: Situation) -> str:
    """Ranks compute on GPUs."""
    return "GPUs in use" if situation.uses_gpus else ""


def without_peer_access(situation: Situation) -> str:
    """Some host's GPUs, of which several are in use, cannot read each other's memory."""
    hosts = [facts.hostname for facts in situation.known_hosts() if facts.gpu_p2p is False]
    if not situation.uses_gpus or not hosts or max(situation.local_ranks) < 2:
        return ""
    return f"nvidia-smi topo -p2p r says so on {', '.join(hosts[:4])}"


def _where_nccl_exchanges(situation: Situation, test: HostTest, fact: str) -> str:
    """Return the fact if GPUs exchange between hosts, all of which pass."""
    return fact if situation.exchanges_on_gpus and situation.all_hosts(test) else ""


def _machine_types(situation: Situation, cloud: str, types: tuple[str, ...]) -> str:
    """Return the hosts' machine types in words if all are of one of these."""

    def is_one(facts: HostFacts) -> bool:
        return facts.cloud == cloud and (facts.instance_type or "").startswith(types)

    if not situation.all_hosts(is_one):
        return ""
    return ", ".join(dict.fromkeys(f.instance_type or "" for f in situation.known_hosts()))
