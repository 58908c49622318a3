"""How many ranks there should be, and who may run alone."""

import pytest
import tiers

tiers.require("torch")

from hpctrain.errors import LaunchError, PlanError  # noqa: E402
from hpctrain.train.communicator import (  # noqa: E402
    Communicator,
    check_size,
    launched_size,
    open_communicator,
)

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
