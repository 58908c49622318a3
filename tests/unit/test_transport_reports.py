"""What MPIs print of their transports: captured here, or by others where that is named."""

# ruff: noqa: E501 (output as it is)

import pytest

from hpctrain.bench.transport.found import judge_transport
from hpctrain.bench.transport.lines import telling_lines
from hpctrain.bench.transport.mpi_report import parse_mpi_report

# Open MPI 5.0.11, two lab nodes with two ranks each, --mca ompi_display_comm mpi_init.
OPEN_MPI_5 = """\
Host 0 [n1] ranks 0 - 1
Host 1 [n2] ranks 2 - 3

 host | 0   1
======|=========
    0 : sm  tcp
    1 : tcp sm

Connection summary: (pml)
  on-host:  all connections are sm
  off-host: all connections are tcp
"""
# The same on one machine.
OPEN_MPI_5_ALONE = """\
Host 0 [node] ranks 0 - 1

Connection summary: (pml)
  on-host:  all connections are sm
  off-host: all connections are n/a
"""
# open-mpi/ompi#5507's form of a host with one rank.
OPEN_MPI_SELF = """\
  Connection summary:
    on-host:  all connections are sm or self
    off-host: all connections are tcp
"""
# Oracle's tutorial of OpenMPI on OCI, two hosts with 36 ranks each.
OPEN_MPI_UCX = """\
Connection summary: (pml)
  on-host:  all connections are ucx=posix;memory,xpmem;memory,rc_mlx5;mlx5_2:1
  off-host: all connections are ucx=rc_mlx5;mlx5_2:1
"""
# open-mpi/ompi, hook_comm_method_fns.c: the form of what is printed where not all are alike.
OPEN_MPI_MIXED = """\
Connection summary: (btl)
  on-host:  all connections are sm
  off-host: most connections are openib
Exceptions:
  host 2: [2x openib] [1x tcp] [1x sm]
"""
# Open MPI 4.1.8, two lab nodes, btl_base_verbose 100.
OPEN_MPI_4 = """\
[n1:00124] mca: bml: Using self btl for send to [[11090,1],1] on node n1
[n1:00123] mca: bml: Using vader btl for send to [[11090,1],1] on node n1
[n2:00127] btl:tcp: path from 198.18.14.13 to 198.18.14.12: IPV4 PUBLIC SAME NETWORK
[n2:00127] mca: bml: Using tcp btl for send to [[11090,1],0] on node n1
[n2:00127] btl: tcp: attempting to connect() to [[11090,1],0] address 198.18.14.12 on port 1025
[n1:00123] mca: bml: Using tcp btl for send to [[11090,1],2] on node n2
"""
# Intel MPI 2021.18.1, two lab nodes, I_MPI_DEBUG=5.
INTEL_MPI = """\
[0] MPI startup(): libfabric version: 2.4.0-impi
[0] MPI startup(): libfabric provider: tcp
[0] MPI startup(): Number of NICs:  1
"""
INTEL_MPI_ALONE = "[0] MPI startup(): library kind: release\n[0] MPI startup(): I_MPI_DEBUG=5\n"
# parthenon-hpc-lab/parthenon#1260.
UCX = """\
[1750940428.181226] [jpbo-007-31:2814548:0]      ucp_worker.c:1903 UCX  INFO    ucp_context_0 inter-node cfg#8 tag(rc_mlx5/mlx5_2:1 rc_mlx5/mlx5_0:1 rc_mlx5/mlx5_1:1 rc_mlx5/mlx5_3:1)
[1750940426.960564] [jpbo-007-24:516901:0]      ucp_worker.c:1903 UCX  INFO    ucp_context_0 intra-node cfg#4 tag(sysv/memory cma/memory rc_mlx5/mlx5_3:1 rc_mlx5/mlx5_0:1 cuda_ipc/cuda)
"""
# open-mpi/ompi#9080, four hosts; and openucx/ucx#9560, over InfiniBand's TCP.
OLD_UCX = """\
[1624984398.083715] [r39c2t5n1:22453:0]     ucp_worker.c:1720 UCX  INFO  ep_cfg[0]: tag(self/memory rc_mlx5/mlx5_0:1 rc_mlx5/mlx5_1:1);
[1624984398.153330] [r39c2t5n4:22213:0]     ucp_worker.c:1720 UCX  INFO  ep_cfg[1]: tag(rc_mlx5/mlx5_0:1 rc_mlx5/mlx5_1:1);
"""
OLD_UCX_TCP = """\
ucp_worker.c:1783 UCX  INFO ep_cfg[1]: tag(sysv/memory cma/memory cuda_copy/cuda)
ucp_worker.c:1783 UCX  INFO ep_cfg[3]: tag(tcp/ib1 tcp/ib0)
"""


@pytest.mark.parametrize(
    ("text", "between", "within"),
    [
        (OPEN_MPI_5, ("socket",), ("shm",)),
        (OPEN_MPI_5_ALONE, (), ("shm",)),
        (OPEN_MPI_SELF, ("socket",), ("shm",)),
        (OPEN_MPI_UCX, ("ib",), ("shm", "ib")),
        (OPEN_MPI_MIXED, ("ib", "socket"), ("shm",)),
        (OPEN_MPI_4, ("socket",), ("shm",)),
        (INTEL_MPI, ("socket",), ()),
        (UCX, ("ib",), ("shm",)),
        (OLD_UCX, ("ib",), ()),
        (OLD_UCX_TCP, ("socket",), ("shm",)),
    ],
)
def test_transports_of_captured_reports(text, between, within):
    found = parse_mpi_report("Open MPI v5.0.11", text)
    assert (found.between, found.within) == (between, within)
    assert found.evidence
    sent = "\n".join(telling_lines(text.splitlines()))
    assert parse_mpi_report("Open MPI v5.0.11", sent) == found


@pytest.mark.parametrize("text", ["", INTEL_MPI_ALONE, "sizeof(MPIDI_per_vci_t): 192\n"])
def test_reports_that_tell_of_no_transport(text):
    assert parse_mpi_report("MPICH", text) is None


def test_ucx_s_own_word_counts_where_open_mpi_says_no_more_than_ucx():
    plain = "  on-host:  all connections are ucx\n  off-host: all connections are ucx\n"
    assert parse_mpi_report("Open MPI", plain).between == ("ucx",)
    assert parse_mpi_report("Open MPI", plain + UCX).between == ("ib",)
    assert parse_mpi_report("Open MPI", plain + OLD_UCX_TCP).between == ("socket",)


def test_one_exception_among_many_hosts_is_a_fall_back():
    found = parse_mpi_report("Open MPI v5.0.11", OPEN_MPI_MIXED)
    assert "got ib and socket between hosts" in judge_transport("ib", found, hosts=3)
