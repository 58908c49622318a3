"""The tuning rules, one table: fact → setting, each with its reason and source.

Fewer variables are better than more: a rule sets something only where a fact asks for it and a
source says so. What it sets is an *intent*, which `dialects.py` words for each MPI, or a plain
variable. What the user has set already is left alone. docs/tuning.md shows the table; what each
fact means exactly stands in `conditions.py` and `conditions_fabric.py`.
"""

from __future__ import annotations

from hpctrain.launch import conditions
from hpctrain.launch import conditions_fabric as fabric
from hpctrain.launch.rule import Rule, Setting, Versions
from hpctrain.launch.situation import Situation

HOROVOD_MPI_DOC = "Horovod 0.28.1, docs/mpi.rst"
OPEN_MPI_TCP_FAQ = "Open MPI FAQ, 'TCP: selecting interfaces'"
OPEN_MPI_UCX_DOC = "Open MPI 5 documentation, 'InfiniBand / RoCE support'"
NCCL_ENV_DOC = "NCCL 2.30 user guide, 'Environment Variables'"
NCCL_NOTES = "NCCL, notes of its releases"
PRRTE_SEEN = "seen with Open MPI 5.0.11: a CIDR on an interface with IPv6 too is ignored"
MEASURED = "measured by hpctrain, docs/tuning.md"
EFA_SHEET = "AWS, awsome-distributed-training, 'EFA cheat sheet'"
GCP_TCPX = "Google, Cluster Toolkit, a3-highgpu-8g with GPUDirect-TCPX"
GCP_GPUDIRECT = "Google Cloud, 'GPU network bandwidth and GPUDirect'"
FAST_SOCKET = "google/nccl-fastsocket, README"

STAY_ON_TCP = "MPI stays on shared memory and TCP, which are always there"
ONE_NETWORK = (
    "one network that all hosts share, by its CIDR: interface names differ between hosts, "
    "and docker0 or virbr0 lead nowhere"
)
FABRIC_OR_ERROR = "a fabric that fails is an error, in place of a silent fall back to TCP"
TCPX_SET = "GPUDirect-TCPX: Google's values, which belong together"
# Source: GCP_TCPX. Between hosts alone: on one node NVLink carries everything.
TCPX_VARIABLES = {
    "NCCL_NET": "GPUDirectTCPX_v7",
    "NCCL_SOCKET_IFNAME": fabric.A3_HIGH_HOST_NIC,
    "NCCL_GPUDIRECTTCPX_SOCKET_IFNAME": ",".join(fabric.A3_HIGH_GPU_NICS),
    "NCCL_CROSS_NIC": "0",
    "NCCL_ALGO": "Ring",
    "NCCL_PROTO": "Simple",
    "NCCL_NSOCKS_PERTHREAD": "4",
    "NCCL_SOCKET_NTHREADS": "1",
    "NCCL_NET_GDR_LEVEL": "PIX",
    "NCCL_P2P_PXN_LEVEL": "0",
}

RULES: tuple[Rule, ...] = (
    # -- mpirun --
    Rule(
        intent="bind_none",
        when=conditions.always,
        reason="ranks are not pinned: Horovod's and torch's threads need more than one core each",
        source=HOROVOD_MPI_DOC,
    ),
    Rule(
        intent="allow_root",
        when=conditions.started_by_root,
        reason="mpirun refuses root unless told otherwise",
        source="mpirun(1), --allow-run-as-root",
    ),
    Rule(
        intent="no_ssh",
        when=conditions.without_ssh,
        reason="a launch on one machine must not look for ssh",
        source="seen with Open MPI 4.1.8: it ends in plm_rsh_component.c",
    ),
    # -- MPI's transport --
    Rule(
        intent="tcp_transport",
        when=conditions.gpus_exchange_by_nccl,
        reason=f"{STAY_ON_TCP}; NCCL carries the bulk on GPUs",
        source=HOROVOD_MPI_DOC,
    ),
    Rule(
        intent="tcp_transport",
        when=conditions.cpus_without_fabric,
        reason=STAY_ON_TCP,
        source=HOROVOD_MPI_DOC,
    ),
    Rule(
        intent="ucx_transport",
        when=fabric.cpus_with_ucx,
        reason="ranks on CPUs exchange through MPI: over the fabric, or not at all",
        source=OPEN_MPI_UCX_DOC,
    ),
    Rule(
        intent="env:UCX_NET_DEVICES",
        value=fabric.compute_devices,
        when=fabric.cpus_with_ucx,
        reason="the compute fabric's ports, and no other device or network",
        source=OPEN_MPI_UCX_DOC,
    ),
    # -- the chosen network --
    Rule(
        intent="subnet",
        value=conditions.chosen_subnet,
        when=conditions.subnet_chosen,
        reason=ONE_NETWORK,
        source=OPEN_MPI_TCP_FAQ,
    ),
    Rule(
        intent="control_subnet",
        value=conditions.chosen_subnet,
        when=conditions.subnet_for_cidr_readers,
        reason=ONE_NETWORK,
        source=OPEN_MPI_TCP_FAQ,
    ),
    Rule(
        intent="control_subnet",
        value=conditions.shared_interface,
        when=conditions.interface_name_is_shared,
        reason=ONE_NETWORK,
        source=PRRTE_SEEN,
    ),
    Rule(
        intent="control_subnet",
        value=conditions.chosen_subnet,
        when=conditions.subnet_without_ipv6,
        reason=ONE_NETWORK,
        source=PRRTE_SEEN,
    ),
    # -- waiting, and lost links --
    Rule(
        intent="yield_when_idle",
        when=conditions.on_cpus,
        reason="ranks that compute on the CPU fill the cores: a rank that waits in MPI must not "
        "take one from a rank that computes",
        source=MEASURED,
    ),
    Rule(
        intent="keepalive",
        when=conditions.on_other_hosts,
        reason="a pulled cable is noticed in seconds; by default after 300 s and 9 probes of 20 s",
        source="prte_info --all of Open MPI 5.0.11",
    ),
    Rule(
        intent="no_tree_launch",
        value=lambda situation: str(len(situation.host_names)),
        when=conditions.on_many_hosts,
        reason="the launcher starts every host itself: a tree needs ssh from any host to any host",
        source="Open MPI, plm_rsh_no_tree_spawn",
    ),
    # -- NCCL over InfiniBand and RoCE --
    Rule(
        intent="env:NCCL_NET",
        value="IB",
        when=fabric.on_infiniband,
        reason=FABRIC_OR_ERROR,
        source=NCCL_ENV_DOC,
    ),
    Rule(
        intent="env:NCCL_NET",
        value="IB",
        when=fabric.on_roce,
        reason=f"{FABRIC_OR_ERROR}; NCCL's name for RoCE is IB too",
        source=NCCL_ENV_DOC,
    ),
    Rule(
        intent="env:NCCL_IB_HCA",
        value=fabric.nccl_devices,
        when=fabric.on_ports_to_leave_out,
        reason="the compute fabric alone: NCCL would take the storage side's ports as well",
        source=NCCL_ENV_DOC,
    ),
    Rule(
        intent="env:NCCL_IB_GID_INDEX",
        value="3",
        when=fabric.on_roce,
        versions=(Versions("nccl", before="2.21"),),
        reason="RoCE v2 over IPv4, as a rule; from 2.21 on NCCL finds it by itself",
        source=NCCL_ENV_DOC,
    ),
    # -- AWS --
    Rule(
        intent="env:FI_EFA_USE_HUGE_PAGE",
        value="0",
        when=fabric.on_efa,
        reason="fork after huge pages are taken fails in data loaders",
        source=EFA_SHEET,
    ),
    Rule(
        intent="env:FI_EFA_USE_DEVICE_RDMA",
        value="1",
        when=fabric.on_efa_of_p4_or_p5,
        versions=(Versions("aws-ofi-nccl", before="1.7"),),
        reason="this plugin uses RDMA only when told; from 1.7 on by itself",
        source=EFA_SHEET,
    ),
    Rule(
        intent="env:FI_PROVIDER",
        value="efa",
        when=fabric.on_efa_of_p4_or_p5,
        versions=(Versions("aws-ofi-nccl", before="1.6"),),
        reason="this plugin takes the first provider that libfabric offers",
        source=EFA_SHEET,
    ),
    Rule(
        intent="env:NCCL_PROTO",
        value="simple",
        when=fabric.on_efa_of_p4_or_p5,
        versions=(Versions("aws-ofi-nccl", before="1.6"),),
        reason="other protocols need an order of writes that EFA does not keep; "
        "from 1.6 on the plugin sees to it",
        source=EFA_SHEET,
    ),
    Rule(
        intent="env:NCCL_SHM_USE_CUDA_MEMCPY",
        value="1",
        when=fabric.on_g5_or_g6,
        versions=(Versions("nccl", "2.13", "2.30.7"),),
        reason="these GPUs have no peer access: copies through host memory go by copy engine",
        source="AWS, settings for g5 and g6; NCCL, src/transport/shm.cc",
    ),
    # -- GCP --
    *(
        Rule(
            intent=f"env:{name}",
            value=value,
            when=fabric.on_a3_high,
            reason=TCPX_SET,
            source=GCP_TCPX,
        )
        for name, value in TCPX_VARIABLES.items()
    ),
    Rule(
        intent="advice:NCCL_GPUDIRECTTCPX_SOCKET_IFNAME",
        when=fabric.on_a3_high_with_other_names,
        reason="GPUDirect-TCPX needs the names of this image's interfaces, which no rule knows: "
        "set NCCL_NET, NCCL_SOCKET_IFNAME and NCCL_GPUDIRECTTCPX_SOCKET_IFNAME as its page says",
        source=GCP_TCPX,
    ),
    Rule(
        intent="advice:NCCL_FASTRAK_IFNAME",
        value="NCCL_LIB_DIR=/var/lib/tcpxo/lib64 source /var/lib/tcpxo/lib64/nccl-env-profile.sh",
        when=fabric.on_machines("gcp", "a3-megagpu-8g"),
        reason="GPUDirect-TCPXO is set by Google's script, which belongs to the installed plugin: "
        "source it in this shell, and ranks get what it sets",
        source=GCP_GPUDIRECT,
    ),
    Rule(
        intent="env:NCCL_NET",
        value="gIB",
        when=fabric.on_machines("gcp", "a3-ultragpu-8g"),
        reason=FABRIC_OR_ERROR,
        source=GCP_GPUDIRECT,
    ),
    Rule(
        intent="advice:NCCL_IB_FIFO_TC",
        value="source /usr/local/gib/scripts/set_nccl_env.sh",
        when=fabric.on_machines("gcp", "a3-ultragpu-8g"),
        reason="gIB is tuned by Google's script, which belongs to the installed plugin: "
        "source it in this shell, and ranks get what it sets",
        source=GCP_GPUDIRECT,
    ),
    Rule(
        intent="note",
        when=fabric.on_gvnic_alone,
        reason="nothing is set: expect NET/FastSocket in NCCL's log; NET/Socket means that the "
        "image has no Fast Socket plugin",
        source=FAST_SOCKET,
    ),
    # -- GPUs without peer access; NCCL's bad versions --
    Rule(
        intent="note",
        when=fabric.without_peer_access,
        reason="nothing is set: NCCL goes through host memory by itself, and needs room in "
        "/dev/shm; NCCL_P2P_DISABLE is for debugging alone",
        source=NCCL_ENV_DOC,
    ),
    Rule(
        intent="advice:",
        when=fabric.on_gpus,
        versions=(Versions("nccl", "2.28.3", "2.28.9", on_any=True),),
        reason="this NCCL may hang on many ranks; take 2.28.9 or later",
        source=f"{NCCL_NOTES}, 2.28.9",
    ),
    Rule(
        intent="advice:",
        when=fabric.on_infiniband,
        versions=(Versions("nccl", "2.29.7", "2.30.7", on_any=True),),
        reason="this NCCL hangs for some on InfiniBand; take 2.30.7 or later",
        source=f"{NCCL_NOTES}, 2.30.7",
    ),
)


def plan_settings(situation: Situation) -> list[Setting]:
    """Return every setting that the rules ask for, in the order of :data:`RULES`."""
    return [setting for rule in RULES if (setting := rule.apply(situation)) is not None]
