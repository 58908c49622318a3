"""The transport contract and `hpctrain env explain` between two nodes, over ssh."""

import json
import sys

import pytest
from nodes import nodes_up

pytestmark = pytest.mark.needs("mpirun", "horovod")


def test_socket_is_proved_and_ib_fails_loudly(tmp_path):
    with nodes_up(tmp_path, 3) as nodes:
        # A spare is no part of the proof: two hosts exchange.
        waiting = ("--hosts", str(nodes.hostfile), "--spares", "1", "--max-restarts", "1")
        passed = nodes.run(*waiting, "--require-transport", "socket", "--", "true", name="a")
        failed = nodes.run(*waiting, "--require-transport", "ib", "--", "true", name="b")
    assert passed.returncode == 0, passed.stderr
    assert "transport: socket between hosts, shm within hosts, by Open MPI" in passed.stderr
    assert failed.returncode == 1
    assert "a silent fall back, got socket between hosts by Open MPI; expected ib" in failed.stderr
    assert "off-host: all connections are tcp" in failed.stderr
    assert not failed.path.exists()


def test_each_host_s_variables_and_where_they_come_from(tmp_path):
    with nodes_up(tmp_path) as nodes:
        out = nodes.check_output(
            "n0", "env", "NCCL_ALGO=Ring", "NCCL_TIMEOUT=60",
            sys.executable, "-m", "hpctrain", "env", "explain", "--hosts", str(nodes.hostfile),
            "--json",
        )  # fmt: skip
    hosts = json.loads(out)["hosts"]
    assert set(hosts) == {"n1", "n2"}
    for told in hosts.values():
        variables = {variable["name"]: variable for variable in told["variables"]}
        assert variables["NCCL_ALGO"]["origin"] == "shell"
        assert variables["NCCL_SOCKET_IFNAME"]["origin"] == "rank shim"
        assert variables["OMPI_MCA_btl_tcp_if_include"]["source"]
        # It is not passed on to other hosts, so no rank there has it.
        assert "NCCL_TIMEOUT" not in variables


@pytest.mark.parametrize("flavour", ["openmpi4", "intelmpi"])
def test_other_mpis_tell_as_well(tmp_path, request, flavour):
    mpi = request.getfixturevalue(flavour)
    with nodes_up(tmp_path) as nodes:
        done = nodes.run(
            "--hosts", str(nodes.hostfile), "--require-transport", "ib",
            "--set", 'launch.forward=["MPI4PY_LIBMPI"]', "--", "true",
            env={**mpi.env, "HPCTRAIN_MPIRUN": mpi.mpirun},
        )  # fmt: skip
    name = {"openmpi4": "Open MPI", "intelmpi": "Intel MPI"}[flavour]
    assert done.returncode == 1
    assert f"got socket between hosts by {name}; expected ib" in done.stderr
