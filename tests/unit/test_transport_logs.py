"""What NCCL and MPI say of their transports: parsers on captured logs, and what is made of it."""

# ruff: noqa: E501 (logs as they are)

import pytest

from hpctrain.bench.transport.found import (
    TransportFound,
    describe_found,
    judge_transport,
    merge_found,
)
from hpctrain.bench.transport.lines import telling_lines
from hpctrain.bench.transport.nccl_log import parse_nccl_log

# Captured logs, each from the public report that is named; lines left out, none changed.
IB_GDR = """\
10-90-43-152:120890:121560 [0] NCCL INFO Channel 01 : 2[c7000] -> 0[87000] [receive] via NET/IB/5/GDRDMA
10-90-43-152:120890:121563 [3] NCCL INFO Channel 01 : 3[ca000] -> 2[c7000] [send] via NET/IB/2/GDRDMA
"""  # NVIDIA/nccl#707
IB_PLUGIN_NVLINK = """\
H20-GPU-05:1789225:1789736 [1] NCCL INFO Pattern 4, crossNic 1, nChannels 4, bw 24.000000/24.000000, type NVL/PIX, sameChannels 0
H20-GPU-05:1789225:1789736 [1] NCCL INFO  0 : NET/3 GPU/0 GPU/1 NET/2
H20-GPU-06:4015539:4015652 [0] NCCL INFO Channel 07/0 : 0[0] -> 2[0] [receive] via NET/IB/3/GDRDMA
H20-GPU-06:4015540:4015653 [1] NCCL INFO Channel 00/0 : 3[1] -> 2[0] via P2P/CUMEM
H20-GPU-05:1789225:1789736 [1] NCCL INFO Channel 01/0 : 1[1] -> 0[0] via P2P/CUMEM
"""  # NVIDIA/nccl#1189
IB_EXTERNAL = """\
bigo:1884:2298 [0] NCCL INFO P2P plugin IBext_v8
bigo:1884:2298 [0] NCCL INFO NET/IB : Using [0]={[0] mlx5_2:1/RoCE, [1] mlx5_3:1/RoCE} [1]={[2] mlx5_0:1/RoCE, [3] mlx5_1:1/RoCE} [RO]; OOB bond0.526:169.136.106.9<0>
bigo:1884:2298 [0] NCCL INFO Using network IBext_v8
bigo:1884:2298 [0] NCCL INFO Channel 00/0 : 1[0] -> 2[0] [receive] via NET/IBext_v8/1
bigo:1884:2298 [0] NCCL INFO Channel 00/0 : 2[0] -> 0[0] [send] via NET/IBext_v8/1
"""  # NVIDIA/nccl-tests#373
# The one that hurts: the bootstrap goes over an InfiniBand interface, the data over its TCP.
SILENT_FALLBACK = """\
<cluster_name>:925:925 [6] NCCL INFO Bootstrap : Using ibp12s0:10.149.0.32<0>
<cluster_name>:919:1150 [0] NCCL INFO Channel 01/0 : 8[0] -> 15[7] via P2P/IPC/read
<cluster_name>:926:1151 [7] NCCL INFO Channel 03/0 : 15[7] -> 6[6] [send] via NET/Socket/3
<cluster_name>:919:1150 [0] NCCL INFO Channel 00/0 : 0[0] -> 8[0] [receive] via NET/Socket/0
"""  # NVIDIA/nccl#952
OLD_RING_SOCKET = """\
c6ad99331184:117305:117387 [0] NCCL INFO CUDA Dev 0[4], Socket NIC distance :  SYS
c6ad99331184:117326:117390 [0] NCCL INFO Ring 00 : 2[0] -> 3[0] via direct shared memory
c6ad99331184:117277:117384 [0] NCCL INFO Ring 00 : 15 -> 0 [receive] via NET/Socket/0
"""  # NVIDIA/nccl#367
EFA = """\
8h200-2:6831:6840 [0] NCCL INFO Using network Libfabric
8h200-3:6310:6318 [0] NCCL INFO NET/OFI Selected Provider is efa (found 16 nics)
8h200-2:14630:14695 [1] NCCL INFO Channel 07/0 : 1[1] -> 0[0] [send] via NET/AWS Libfabric/1/GDRDMA
"""  # NVIDIA/nccl#1597
# The plug-in is loaded, and its libfabric found no EFA.
LIBFABRIC_OVER_TCP = """\
ip-192-168-16-255:25604:25604 [0] NCCL INFO NET/Socket : Using [0]eth0:192.168.16.255<0>
ip-192-168-16-255:25604:25604 [0] NCCL INFO NET/OFI Selected Provider is tcp;ofi_rxm
"""  # NVIDIA/nccl#229
OLD_RING_EFA = """\
[1,26]<stdout>:ip-172-32-36-209:8716:9558 [2] NCCL INFO Ring 00 : 26[2] -> 30[6] via P2P/IPC
[1,7]<stdout>:ip-172-32-38-1:21471:22316 [7] NCCL INFO Ring 00 : 7 -> 8 [send] via NET/AWS Libfabric/0
"""  # aws/aws-ofi-nccl#24
SHM_ONLY = """\
node031:1936469:1936513 [0] NCCL INFO Pattern 4, crossNic 0, nChannels 1, bw 5.000000/5.000000, type SYS/PIX, sameChannels 1
node031:1936469:1936513 [0] NCCL INFO Ring 00 : 7 -> 0 -> 1
node031:1936469:1936515 [2] NCCL INFO Channel 00 : 2[2] -> 3[3] via SHM/direct/direct
node031:1936469:1936513 [0] NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct
"""  # NVIDIA/nccl-tests#307
GIB = """\
ray-cluster-ccc-gpu-group-worker-4wkhd:1876:2960 [0] NCCL INFO NET/gIB : Initializing gIB v1.0.6
ray-cluster-ccc-gpu-group-worker-4wkhd:2050:3084 [0] NCCL INFO Channel 03/0 : 2[2] -> 11[3] [send] via NET/gIB/3/GDRDMA
"""  # Google's documentation of Ray on a3-ultragpu
TCPX = "NCCL INFO Using network GPUDirectTCPX_v7\n"  # a public run on two a3-highgpu-8g
FASTRAK = """\
NCCL INFO Using network FasTrak
NCCL INFO Initializing network FasTrak, version: 1.0.17
"""  # a public run on a3-megagpu-8g
SOCKET_CHOSEN = """\
manolinux:3319:3329 [1] NCCL INFO NET/Socket : Using [0]eno1:10.39.43.133<0>
manolinux:3319:3329 [1] NCCL INFO Using non-device net plugin version 0
manolinux:3319:3329 [1] NCCL INFO Using network Socket
manolinux1:12260:12268 [0] NCCL INFO NET/IB : No device found.
"""  # NVIDIA/nccl-tests#179


@pytest.mark.parametrize(
    ("log", "between", "within"),
    [
        (IB_GDR, ("ib",), ()),
        (IB_PLUGIN_NVLINK, ("ib",), ("nvlink",)),
        (IB_EXTERNAL, ("ib",), ()),
        (SILENT_FALLBACK, ("socket",), ("p2p",)),
        (OLD_RING_SOCKET, ("socket",), ("shm",)),
        (EFA, ("efa",), ()),
        (OLD_RING_EFA, ("AWS Libfabric",), ("p2p",)),
        (SHM_ONLY, (), ("shm",)),
        (GIB, ("ib",), ()),
        (TCPX, ("tcpx",), ()),
        (FASTRAK, ("tcpx",), ()),
        (SOCKET_CHOSEN, ("socket",), ()),
    ],
)
def test_transports_of_captured_nccl_logs(log, between, within):
    found = parse_nccl_log(log)
    assert (found.between, found.within) == (between, within)
    assert found.evidence
    assert all(line in log for line in found.evidence)


def test_a_log_that_tells_of_no_transport():
    assert parse_nccl_log("") is None
    assert parse_nccl_log(LIBFABRIC_OVER_TCP) is None
    assert parse_nccl_log("NCCL version 2.23.4+cuda12.4\n") is None


def test_libfabric_without_an_efa_is_tcp():
    """The same plug-in's channel line stands in the log of aws/aws-ofi-nccl#24, which found an EFA."""
    channel = OLD_RING_EFA.splitlines()[1]
    assert parse_nccl_log(f"{LIBFABRIC_OVER_TCP}{channel}\n").between == ("socket",)


@pytest.mark.parametrize("log", [IB_GDR, SILENT_FALLBACK, EFA, SHM_ONLY, TCPX, OLD_RING_SOCKET])
def test_the_lines_that_a_rank_sends_tell_as_much_as_its_whole_log(log):
    noise = "".join(
        f"host:1:1 [0] NCCL INFO comm 0x{n} rank {n} Init COMPLETE\n" for n in range(999)
    )
    sent = telling_lines((noise + log).splitlines())
    assert len(sent) <= log.count("\n")
    assert parse_nccl_log("\n".join(sent)) == parse_nccl_log(log)


# -- the contract --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "expected", "hosts"),
    [
        (IB_GDR, "ib", 2), (IB_EXTERNAL, "ib", 2), (GIB, "ib", 2), (EFA, "efa", 2),
        (TCPX, "tcpx", 2), (FASTRAK, "tcpx", 2), (SILENT_FALLBACK, "socket", 2),
        (IB_PLUGIN_NVLINK, "nvlink", 2), (IB_PLUGIN_NVLINK, "ib", 2),
    ],
)  # fmt: skip
def test_what_was_asked_for_passes(log, expected, hosts):
    assert judge_transport(expected, parse_nccl_log(log), hosts) == ""


@pytest.mark.parametrize(
    ("log", "expected", "words"),
    [
        (
            SILENT_FALLBACK,
            "ib",
            "a silent fall back, got socket between hosts by NCCL; expected ib",
        ),
        (SILENT_FALLBACK, "efa", "got socket between hosts"),
        (SILENT_FALLBACK, "nvlink", "got p2p within a host"),
        (OLD_RING_EFA, "efa", "got AWS Libfabric between hosts"),
        (SHM_ONLY, "nvlink", "got shm within a host"),
        (IB_GDR, "nvlink", "reports nothing within a host"),
        (IB_GDR, "socket", "got ib between hosts"),
    ],
)
def test_a_silent_fall_back_is_named_with_found_and_expected(log, expected, words):
    assert words in judge_transport(expected, parse_nccl_log(log), hosts=2)


def test_ranks_on_one_host_prove_no_network():
    problem = judge_transport("ib", parse_nccl_log(SHM_ONLY), hosts=1)
    assert problem == "all ranks are on one host, got no traffic between hosts; expected ib"
    assert "nothing was reported" in judge_transport("ib", None, hosts=2)


def test_one_rank_on_another_transport_is_enough_to_fail():
    found = merge_found([parse_nccl_log(IB_GDR), parse_nccl_log(SILENT_FALLBACK)])
    assert found.between == ("ib", "socket")
    assert "got ib and socket" in judge_transport("ib", found, hosts=2)
    assert merge_found([]) is None


def test_what_was_found_in_words():
    assert describe_found(TransportFound(library="Open MPI")) == "nothing, by Open MPI"
