"""How many ranks there should be, and who may run alone."""

import pytest
import tiers

tiers.require("torch")

from hpctrain.config import parse_config  # noqa: E402
from hpctrain.errors import LaunchError, PlanError  # noqa: E402
from hpctrain.launch.rank_env import RankIdentity  # noqa: E402
from hpctrain.train.communicator import (  # noqa: E402
    Communicator,
    check_size,
    launched_size,
    open_communicator,
)
from hpctrain.train.flops import rank_flops  # noqa: E402
from hpctrain.train.rendezvous import find_meeting_point  # noqa: E402

VARIABLES = ("HPCTRAIN_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


@pytest.fixture
def launched(monkeypatch):
    """Return a function that sets the launchers' variables, and no others."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return lambda **variables: [monkeypatch.setenv(*item) for item in variables.items()]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (1, "no launcher")),
        ({"HPCTRAIN_SIZE": "4"}, (4, "an unknown MPI")),
        ({"HPCTRAIN_SIZE": "4", "PMI_SIZE": "4"}, (4, "MPICH or Intel MPI")),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, (2, "Open MPI")),
        ({"HPCTRAIN_SIZE": "", "OMPI_COMM_WORLD_SIZE": "2"}, (2, "Open MPI")),
    ],
)
def test_launched_size_comes_from_hpctrain_or_else_the_launcher(launched, variables, expected):
    launched(**variables)
    assert launched_size() == expected


def test_ranks_that_do_not_find_each_other_name_both_numbers_and_both_mpis(launched):
    launched(HPCTRAIN_SIZE="4", PMI_SIZE="4")
    check_size(4, "Horovod")
    with pytest.raises(LaunchError) as caught:
        check_size(1, "Horovod (Open MPI v5.0.11)")
    assert "got size 1 from Horovod (Open MPI v5.0.11)" in str(caught.value)
    assert "expected 4 as started by MPICH or Intel MPI" in str(caught.value)


def test_no_backend_is_for_one_rank(launched):
    assert type(open_communicator("none")) is Communicator
    launched(OMPI_COMM_WORLD_SIZE="3")
    with pytest.raises(PlanError, match="'none' is for one rank, got 3 ranks"):
        open_communicator("none")


def test_what_a_rank_computes_in_a_step():
    per_token = 5708544.0  # of the tiny preset, as in hpctrain/train/flops.py's example
    tiny = "[model]\nposition = 'rope'\n"
    assert rank_flops(parse_config(tiny), size=3) == 8 * 128 * per_token
    per_rank = parse_config(tiny + "[train]\nbatch_size_per_rank = 2")
    assert rank_flops(per_rank, size=3) == 2 * 128 * per_token
    shared = parse_config(tiny + "[train]\nglobal_batch_size = 12")
    assert rank_flops(shared, size=3) == 4 * 128 * per_token
    assert rank_flops(parse_config("[model]\nfactory = 'a:b'"), size=3) is None
    assert rank_flops(parse_config("[model]\nnum_heads = 5"), size=3) is None


def test_ranks_of_one_machine_meet_without_a_launcher_at_a_port_of_their_job():
    local = RankIdentity(rank=1, size=2, local_rank=1, local_size=2)
    job = {"PMIX_NAMESPACE": "prterun-a-1@1"}
    address, port = find_meeting_point(job, local)
    assert (address, port) == find_meeting_point(job, local)
    assert address == "127.0.0.1"
    assert find_meeting_point({"PMIX_NAMESPACE": "prterun-a-2@1"}, local)[1] != port
    assert find_meeting_point({}, local) == find_meeting_point({"MASTER_PORT": ""}, local)


def test_ranks_of_several_hosts_need_to_be_told():
    spread = RankIdentity(rank=1, size=4, local_rank=1, local_size=2)
    with pytest.raises(LaunchError, match=r"MASTER_ADDR: not set, got 4 ranks on several hosts"):
        find_meeting_point({}, spread)
    told = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    assert find_meeting_point(told, spread) == ("10.0.0.1", 29500)


class NotingHorovod:
    """Notes what is started, and doubles it when it is waited for, as two equal ranks would."""

    Sum = "sum"

    def __init__(self):
        self.started = {}

    def allreduce_async_(self, tensor, op, name):
        assert op == self.Sum
        assert name not in self.started
        self.started[name] = tensor
        return name

    def synchronize(self, name):
        return self.started[name].mul_(2)


@pytest.fixture
def horovod():
    from hpctrain.train.comm_horovod import HorovodCommunicator

    comm = HorovodCommunicator.__new__(HorovodCommunicator)
    comm._hvd, comm._error = NotingHorovod(), RuntimeError
    comm.size = comm.local_size = 2
    return comm


def test_a_large_exchange_inside_a_host_goes_in_pieces_that_make_up_the_whole(horovod):
    import torch

    from hpctrain.train.comm_horovod import PIECE_BYTES

    tensor = torch.arange(2 * PIECE_BYTES // 4 + 3, dtype=torch.float32)
    expected = 2 * tensor
    result = horovod.wait(horovod.all_reduce_sum_async(tensor, "g"))
    assert result is tensor
    assert torch.equal(result, expected)  # every element once
    assert list(horovod._hvd.started) == ["g.0", "g.1", "g.2"]
    assert max(piece.nbytes for piece in horovod._hvd.started.values()) == PIECE_BYTES


@pytest.mark.parametrize(("numel", "local_size"), [(1 << 20, 2), (1 << 22, 1)])
def test_small_exchanges_and_those_between_hosts_stay_whole(horovod, numel, local_size):
    import torch

    horovod.local_size = local_size
    tensor = torch.ones(numel)
    assert horovod.wait(horovod.all_reduce_sum_async(tensor, "g")) is tensor
    assert list(horovod._hvd.started) == ["g"]
    assert tensor.sum() == 2 * numel
