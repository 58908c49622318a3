"""Machines as fact sets, one value each, for tests of what the tuning rules make of them.

No set is one machine's capture in whole: each is put together, and the comment at each value names
the public output that it is taken from. Addresses are made up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpctrain.facts import Facts, HostFacts, Interface, RdmaPort


@dataclass(frozen=True)
class FactSet:
    """What a plan is made from: facts, and where ranks are asked for (None: this machine)."""

    facts: Facts
    hosts: str | None = None
    np: int | None = None


def _facts(launcher: HostFacts, flavour: str = "openmpi5", **more) -> Facts:
    versions = {"openmpi4": "4.1.8", "openmpi5": "5.0.11", "mpich": "4.3.2", "intelmpi": "2021.18"}
    return Facts(launcher, flavour, versions[flavour], "/opt/mpi/bin/mpirun", "PATH", **more)


def _two(node: HostFacts, slots: int, other: tuple[Interface, ...], **more) -> FactSet:
    """Return a cluster of two alike nodes; mpirun runs on the first."""
    first = replace(node, hostname="n1")
    second = replace(node, hostname="n2", interfaces=other)
    addresses = {
        name: tuple(
            address.partition("/")[0]
            for interface in machine.interfaces
            if not interface.is_virtual
            for address in interface.addresses
        )
        for name, machine in (("n1", first), ("n2", second))
    }
    facts = _facts(first, hosts={"n2": second}, addresses=addresses, **more)
    return FactSet(facts, hosts=f"n1:{slots},n2:{slots}")


LO = Interface("lo", ("127.0.0.1/8", "::1/128"))
DOCKER = Interface("docker0", ("172.17.0.1/16",))

LAPTOP = FactSet(_facts(HostFacts("laptop", cores=4, interfaces=(LO, DOCKER))), np=2)

# Interfaces of other names on each node, and docker0 with one address on both.
ETHERNET = _two(
    HostFacts(
        "n", cores=32,
        interfaces=(LO, DOCKER, Interface("eno1", ("10.1.0.11/24",), "ixgbe")),
    ),
    slots=32,
    other=(LO, DOCKER, Interface("enp1s0", ("10.1.0.12/24",), "igb")),
)  # fmt: skip

# From NVIDIA/nccl: four InfiniBand ports, #1357, "NET/IB : Using [0]mlx5_0:1/IB/SHARP …; OOB
# ibp25s0"; a RoCE port beside such, #302, "[0]mlx5_3:1/IB … [2]mlx5_2:1/RoCE"; a bond's name, #997,
# "mlx5_bond_0:1/RoCE"; NVLink between all GPUs, #1453, "NV18"; NCCL's version, #1866.
_IB_PORTS = (
    *(RdmaPort(f"mlx5_{number}", 1, "InfiniBand") for number in (0, 1, 4, 5)),
    RdmaPort("mlx5_2", 1, "Ethernet"),
    RdmaPort("mlx5_bond_0", 1, "Ethernet"),
)
INFINIBAND = _two(
    HostFacts(
        "n", cores=112, gpus=("NVIDIA H100 80GB HBM3",) * 8, rdma_ports=_IB_PORTS,
        interfaces=(LO, Interface("bond0", ("10.2.0.11/24",)),
                    Interface("ibp25s0", ("10.20.0.119/24",), "mlx5_core")),
        versions={"nccl": "2.27.6"}, gpu_link="nvlink", gpu_p2p=True,
    ),
    slots=8,
    other=(LO, Interface("bond0", ("10.2.0.12/24",)),
           Interface("ibp25s0", ("10.20.0.120/24",), "mlx5_core")),
)  # fmt: skip

# The same nodes without their GPUs: MPI carries everything, over UCX.
_CPU_NODES = {
    "n1": replace(INFINIBAND.facts.launcher, gpus=(), versions={}, gpu_link=None, gpu_p2p=None),
    "n2": replace(INFINIBAND.facts.hosts["n2"], gpus=(), versions={}, gpu_link=None, gpu_p2p=None),
}
INFINIBAND_CPU = FactSet(
    replace(
        INFINIBAND.facts, launcher=_CPU_NODES["n1"], hosts={"n2": _CPU_NODES["n2"]},
        mpi_has_ucx=True,
    ),
    hosts="n1:4,n2:4",
)  # fmt: skip

# RoCE over nothing but bonds: NVIDIA/nccl#997, "[0]mlx5_bond_0:1/RoCE … OOB bond1"; its NCCL
# is of CUDA 12.0's time, before 2.21.
ROCE_OLD_NCCL = _two(
    HostFacts(
        "n", cores=112, gpus=("NVIDIA H800",) * 8,
        rdma_ports=tuple(RdmaPort(f"mlx5_bond_{n}", 1, "Ethernet") for n in range(1, 9)),
        interfaces=(LO, Interface("bond1", ("10.3.0.11/24",))),
        versions={"nccl": "2.18.5"}, gpu_link="nvlink", gpu_p2p=True,
    ),
    slots=8,
    other=(LO, Interface("bond1", ("10.3.0.12/24",))),
)  # fmt: skip

# p4d.24xlarge: four EFA devices (AWS, 'EFA on accelerated instances'), named by their place on the
# PCI bus as aws/eks-charts#1144 shows for p5 (rdmap…s0); NCCL and plugin: awslabs/
# awsome-distributed-ai#261, "NCCL Version 2.18.5, AWS OFI NCCL version: 1.7.3-aws"; libfabric:
# aws/aws-ofi-nccl#141's form of efa_installed_packages. NV12: NVIDIA/nccl#1505.
P4D_EFA = _two(
    HostFacts(
        "n", cores=96, gpus=("NVIDIA A100-SXM4-40GB",) * 8, cloud="aws",
        rdma_ports=tuple(RdmaPort(f"rdmap{n}s27", 1, "Unspecified") for n in (16, 32, 144, 160)),
        interfaces=(LO, DOCKER, Interface("ens32", ("172.31.6.104/20",), "ena")),
        instance_type="p4d.24xlarge",
        versions={"nccl": "2.18.5", "aws-ofi-nccl": "1.7.3-aws", "libfabric": "1.18.1"},
        gpu_link="nvlink", gpu_p2p=True,
    ),
    slots=8,
    other=(LO, DOCKER, Interface("ens32", ("172.31.13.103/20",), "ena")),
)  # fmt: skip

# Google Cloud gives each interface its address as a /32. The machine type's NICs: Google's Cluster
# Toolkit, and NVIDIA/nccl#1519, "Bootstrap : Using enp0s12:10.0.0.6<0>"; google/
# nccl-plugin-gpudirecttcpx#1 names enp12s0 and enp134s0.
_A3_NICS = ("enp0s12", "enp6s0", "enp12s0", "enp134s0", "enp140s0")
A3_HIGHGPU = _two(
    HostFacts(
        "n", cores=208, gpus=("NVIDIA H100 80GB HBM3",) * 8, cloud="gcp",
        interfaces=(LO, *(Interface(name, (f"10.{net}.0.11/32",), "gve")
                          for net, name in enumerate(_A3_NICS))),
        instance_type="a3-highgpu-8g", versions={"nccl": "2.20.5"},
        gpu_link="nvlink", gpu_p2p=True,
    ),
    slots=8,
    other=(LO, *(Interface(name, (f"10.{net}.0.12/32",), "gve")
                 for net, name in enumerate(_A3_NICS))),
)  # fmt: skip

A3_MEGA = _two(
    replace(
        A3_HIGHGPU.facts.launcher, instance_type="a3-megagpu-8g",
        interfaces=(LO, Interface("enp0s12", ("10.0.0.11/32",), "gve")),
    ),
    slots=8,
    other=(LO, Interface("enp0s12", ("10.0.0.12/32",), "gve")),
)  # fmt: skip

# RoCE ports of an a3-ultragpu: read in Google's recipes, "NET/gIB : … HCA 0 'mlx5_0'".
A3_ULTRA = _two(
    replace(
        A3_HIGHGPU.facts.launcher, instance_type="a3-ultragpu-8g",
        gpus=("NVIDIA H200",) * 8,
        interfaces=(LO, Interface("enp0s19", ("10.0.0.11/32",), "gve")),
        rdma_ports=tuple(RdmaPort(f"mlx5_{number}", 1, "Ethernet") for number in range(8)),
    ),
    slots=8,
    other=(LO, Interface("enp0s19", ("10.0.0.12/32",), "gve")),
)  # fmt: skip

A2 = _two(
    HostFacts(
        "n", cores=96, gpus=("NVIDIA A100-SXM4-40GB",) * 8, cloud="gcp",
        interfaces=(LO, DOCKER, Interface("ens7", ("10.128.0.11/32",), "gve")),
        instance_type="a2-highgpu-8g", versions={"nccl": "2.21.5"},
        gpu_link="nvlink", gpu_p2p=True,
    ),
    slots=8,
    other=(LO, DOCKER, Interface("ens7", ("10.128.0.12/32",), "gve")),
)  # fmt: skip

# Twelve links between each two GPUs: NVIDIA/nccl#1505.
NVLINK_NODE = FactSet(
    _facts(
        HostFacts(
            "dgx", cores=128, gpus=("NVIDIA A100-SXM4-40GB",) * 8, rdma_ports=_IB_PORTS,
            interfaces=(LO, Interface("enp226s0", ("10.4.0.11/24",), "mlx5_core")),
            versions={"nccl": "2.21.5"}, gpu_link="nvlink", gpu_p2p=True,
        )
    )
)  # fmt: skip

# noonghunna/club-3090#1229: two RTX 5090 that say PHB by `topo -m`, GNS by `topo -p2p`.
PCIE_NODE = FactSet(
    _facts(
        HostFacts(
            "tower", cores=64, gpus=("NVIDIA GeForce RTX 5090",) * 2, interfaces=(LO, DOCKER),
            versions={"nccl": "2.28.7"}, gpu_link="pcie", gpu_p2p=False,
        )
    )
)  # fmt: skip

FACT_SETS = {
    "laptop": LAPTOP,
    "ethernet": ETHERNET,
    "infiniband": INFINIBAND,
    "infiniband-cpu": INFINIBAND_CPU,
    "roce-old-nccl": ROCE_OLD_NCCL,
    "p4d-efa": P4D_EFA,
    "a3-highgpu": A3_HIGHGPU,
    "a3-megagpu": A3_MEGA,
    "a3-ultragpu": A3_ULTRA,
    "a2": A2,
    "nvlink-node": NVLINK_NODE,
    "pcie-node": PCIE_NODE,
}
