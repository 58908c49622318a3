"""What breaks a training on lab nodes: each fault once."""

import uuid

import pytest
from disturbing import LENGTH, Place, disturb, nodes_up, run_undisturbed

pytestmark = pytest.mark.needs("mpirun", "torch", "horovod")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    with nodes_up(folder, f"t-{uuid.uuid4().hex[:6]}", **LENGTH) as up:
        yield up


@pytest.fixture(scope="module")
def undisturbed(nodes):
    return run_undisturbed(nodes.place)


def test_a_killed_rank(nodes, undisturbed):
    trial = disturb("kill", nodes.place, undisturbed, nodes)
    assert trial.blamed.endswith("signal 9 (SIGKILL)")


@pytest.mark.parametrize("word", ["poweroff", "link-down", "drop"])
def test_a_node_that_is_gone(nodes, undisturbed, word):
    """Also what is left there ends, by itself: nobody could reach it."""
    trial = disturb(word, nodes.place, undisturbed, nodes)
    assert trial.noticed_s is not None


def test_nodes_that_do_not_hear_each_other(nodes, undisturbed):
    """mpirun and Horovod would wait for ever; the launcher still hears all ranks."""
    trial = disturb("isolate", nodes.place, undisturbed, nodes)
    assert "stand still" in trial.blamed


def test_all_sshd_of_a_node_killed(nodes, undisturbed):
    assert disturb("sshd", nodes.place, undisturbed, nodes).exit_code != 0


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("here"), **LENGTH)
    made.prepare()
    return made


def test_a_disk_that_is_full_for_a_while_costs_a_checkpoint_alone(here, undisturbed):
    """No node is needed, but the right to mount a small disk."""
    trial = disturb("disk-full", here, undisturbed)
    assert (trial.exit_code, trial.lost_steps) == (0, 0)
    assert trial.note.startswith("warned after")
