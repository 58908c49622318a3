"""The restart loop on nodes that really go away."""

import os
import signal
import uuid
from pathlib import Path

import launching
import pytest
import restarting
from nodes import nodes_up
from restarting import FORWARD, STEPS, events_named, hooked, losses, settings, weights

pytestmark = pytest.mark.needs("mpirun", "horovod", "torch")

# In the first attempt every rank waits at its gate before step 7: then something happens.
GATES = [(1, rank, 6, "wait") for rank in range(4)]


@pytest.fixture
def name():
    return f"t-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def nodes(tmp_path, request):
    with nodes_up(tmp_path, request.param) as up:
        restarting.prepare(tmp_path)
        yield up


def start(nodes, name, *arguments, acts=GATES, **more):
    words = ("--hosts", str(nodes.hostfile), *FORWARD, *arguments, *settings(**more))
    return nodes.start(*words, env=hooked(nodes.folder, *acts), name=name)


def wait_at_the_gates(nodes, attempt=1, ranks=4):
    gates = [nodes.folder / f"gate-{attempt}-{rank}" for rank in range(ranks)]
    launching.wait_until(lambda: all(gate.exists() for gate in gates), "ranks at their gates")


def launchers(name):
    """Return the launcher itself, without the nsenter that put it on its node."""
    found = []
    for pid in launching.processes_with(name):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"hpctrain" in words and b"nsenter" not in words[0]:
            found.append(pid)
    return found


def undisturbed(nodes, name, **more):
    """Return the same training on four ranks of this machine."""
    words = ("--np", "4", "--oversubscribe", *settings(**more))
    done = launching.run(nodes.folder, *words, env=hooked(nodes.folder), name=f"{name}-full")
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("nodes", [3], indirect=True)
def test_a_spare_takes_the_place_of_a_node_that_lost_its_power(nodes, name):
    full = undisturbed(nodes, name)
    process = start(nodes, name, "--spares", "1", "--max-restarts", "2")
    wait_at_the_gates(nodes)
    nodes.power_off("n2")
    done = launching.finish(process, nodes.folder, name)
    assert done.returncode == 0, done.stderr
    assert [event["hosts"] for event in events_named(done, "attempt")] == [
        ["n1", "n2"], ["n1", "n3"],
    ]  # fmt: skip
    (restart,) = events_named(done, "restart")
    assert (list(restart["left"]), restart["came"], restart["np"]) == (["n2"], ["n3"], 4)
    assert "n2 leaves: ssh fails: " in done.stderr
    assert "n3 takes over" in done.stderr
    assert done.event("resumed")["step"] == 4
    assert losses(done.path) == losses(full.path)
    assert weights(done.path, nodes.folder) == weights(full.path, nodes.folder)


@pytest.mark.parametrize("nodes", [3], indirect=True)
def test_a_spare_takes_the_place_of_a_node_that_is_cut_off(nodes, name):
    """It cannot be swept: its ranks end by themselves, and its sshd would answer again."""
    cut_off = {"launch.cut_off_s": 10}
    process = start(nodes, name, "--spares", "n3", "--max-restarts", "2", **cut_off)
    wait_at_the_gates(nodes)
    nodes.pull_cable("n2")
    done = launching.finish(process, nodes.folder, name)
    assert done.returncode == 0, done.stderr
    assert [event["hosts"] for event in events_named(done, "attempt")] == [
        ["n1", "n2"], ["n1", "n3"],
    ]  # fmt: skip
    assert len(losses(done.path)) == STEPS
    launching.wait_until(
        lambda: "hpctrain.train" not in nodes.check_output("n2", "ps", "ax", "-o", "args"),
        "the cut-off ranks to end by themselves",
    )


@pytest.mark.parametrize("nodes", [2], indirect=True)
def test_without_a_spare_it_goes_on_smaller_with_the_same_batch(nodes, name):
    """A batch per rank, which the number of ranks would otherwise change."""
    batch = {"train.global_batch_size": None, "train.batch_size_per_rank": 2}
    full = undisturbed(nodes, name, **batch)
    process = start(nodes, name, "--min-np", "2", "--max-restarts", "2", **batch)
    wait_at_the_gates(nodes)
    nodes.power_off("n2")
    done = launching.finish(process, nodes.folder, name)
    assert done.returncode == 0, done.stderr
    assert [event["np"] for event in events_named(done, "attempt")] == [4, 2]
    started = events_named(done, "train_started")
    assert [(e["size"], e["global_batch_size"]) for e in started] == [(4, 8), (2, 8)]
    assert "train.global_batch_size = 8 as before, train.grad_accum_steps = 2" in done.stderr
    assert losses(done.path) == pytest.approx(losses(full.path), rel=1e-4)
    assert len(losses(done.path)) == STEPS
    assert "a step had" not in done.stderr  # what the trainer says where the batch is another


@pytest.mark.parametrize("nodes", [2], indirect=True)
def test_too_few_hosts_end_the_run(nodes, name):
    process = start(nodes, name, "--max-restarts", "2")
    wait_at_the_gates(nodes)
    nodes.power_off("n2")
    done = launching.finish(process, nodes.folder, name)
    assert done.returncode not in (0, 2, 75)
    assert "too few hosts for 4 ranks (n2: ssh fails: " in done.stderr
    end = done.event("run_finished")
    assert (end["state"], end["retryable"]) == ("failed", True)


@pytest.mark.parametrize("nodes", [2], indirect=True)
def test_a_killed_launcher_is_started_again_on_the_same_nodes(nodes, name):
    full = undisturbed(nodes, name)
    deaf = [(1, rank, 6, "deaf") for rank in range(4)]
    process = start(nodes, name, acts=deaf, **{"launch.grace_s": 3})
    wait_at_the_gates(nodes)
    (launcher,) = launchers(name)
    os.kill(launcher, signal.SIGKILL)
    process.communicate(timeout=60)
    done = nodes.run("--resume", "--hosts", str(nodes.hostfile), *FORWARD,
                     env=hooked(nodes.folder), name=name)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [event["attempt"] for event in events_named(done, "attempt")] == [1, 2]
    assert losses(done.path) == losses(full.path)
