"""``hpctrain run`` over ssh between nodes, with a real mpirun of each MPI."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import launching
import pytest
import small_training
from launching import MPI_PROGRAM, WAITING_PROGRAM, processes_with
from nodes import nodes_up

from hpctrain.hosts import parse_hostfile

pytestmark = pytest.mark.needs("mpirun")

ENV_PROGRAM = """
import os, socket
print(socket.gethostname(), os.environ["OMP_NUM_THREADS"], os.environ["NCCL_SOCKET_IFNAME"],
      os.environ.get("MY_OWN"), os.environ.get("NOT_FORWARDED"), flush=True)
"""

EXCHANGE_PROGRAM = """
import numpy
from mpi4py import MPI
comm = MPI.COMM_WORLD
total = comm.allreduce(numpy.full(1 << 20, float(comm.rank)), op=MPI.SUM)  # 8 MB
assert (total == 6.0).all()
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    with nodes_up(tmp_path_factory.mktemp("nodes")) as up:
        yield up


@pytest.fixture
def name(request):
    return f"t-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def marker():
    """A word for the command lines of this test's processes; none may be left at the end."""
    word = f"{600 + uuid.uuid4().int % 10**6 / 1e6:.6f}"
    yield word
    launching.wait_until(lambda: not processes_with(word), f"processes left: {word}", 20)


def on_hostfile(nodes, flavour=None):
    given = ("--set", f"launch.mpirun={flavour.mpirun}") if flavour else ()
    env = flavour.env if flavour else {}
    if flavour:
        # Ranks on other nodes need to be told where this flavour's libmpi is as well.
        given = (*given, "--set", 'launch.forward=["MPI4PY_LIBMPI"]')
    return ("--hosts", str(nodes.hostfile), *given), env


def test_ranks_of_each_mpi_on_two_nodes(mpi_flavour, nodes, name):
    arguments, env = on_hostfile(nodes, mpi_flavour)
    before = nodes.received_bytes("n1"), nodes.received_bytes("n2")
    program = MPI_PROGRAM + EXCHANGE_PROGRAM
    done = nodes.run(*arguments, "--", sys.executable, "-c", program, env=env, name=name)
    assert done.returncode == 0, done.stderr
    for rank, host in enumerate(["n1", "n1", "n2", "n2"]):
        assert done.log(rank).decode() == f"rank {rank} of 4 sum 10 local {rank % 2} on {host}\n"
    received = [nodes.received_bytes(n) - b for n, b in zip(("n1", "n2"), before, strict=True)]
    assert min(received) > 8 << 20, received  # over the cable, not through shared memory


def test_what_each_host_decides_and_what_is_forwarded(nodes, name):
    arguments, _ = on_hostfile(nodes)
    env = {"MY_OWN": "a b;c", "NOT_FORWARDED": "1"}
    forward = ("--set", 'launch.forward=["MY_*"]')
    program = (sys.executable, "-c", ENV_PROGRAM)
    done = nodes.run(*arguments, *forward, "--", *program, env=env, name=name)
    assert done.returncode == 0, done.stderr
    assert done.log(3).decode() == "n2 1 =eth0 a b;c None\n"


def test_probing_then_planning_from_what_was_said(nodes, name, tmp_path):
    hostfile = nodes.folder / "no-slots"
    hostfile.write_text("n1\nn2\n")
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    unknown = nodes.run("--hosts", "no-slots", "--dry-run", "--", "true", name=name, env=env)
    assert "n1 has no slots=" in unknown.stderr
    probed = nodes.run(
        "--hosts", "no-slots", "--probe", "--dry-run", "--", "true", name=name, env=env
    )
    assert probed.stderr == ""
    cached = nodes.run("--hosts", "no-slots", "--dry-run", "--", "true", name=name, env=env)
    assert cached.stdout == probed.stdout
    assert "--prtemca prte_if_include eth0" in cached.stdout or "--np 4" in cached.stdout


def test_a_dry_run_line_works_by_hand(nodes, name):
    arguments, _ = on_hostfile(nodes)
    program = (sys.executable, "-c", MPI_PROGRAM)
    dry = nodes.run(*arguments, "--dry-run", "--", *program, name=name)
    by_hand = subprocess.run(
        [*nodes.inside("n0"), "sh", "-c", dry.stdout], capture_output=True, text=True,
        timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    for rank, host in enumerate(["n1", "n1", "n2", "n2"]):
        line = f"rank {rank} of 4 sum 10 local {rank % 2} on {host}"
        assert line in by_hand.stdout, by_hand.stderr


FAILING = """
import os, subprocess, sys, time
subprocess.Popen(["sleep", sys.argv[1]])
if os.environ["RANK"] == "2":
    sys.exit("rank 2 has had enough")
time.sleep(600)
"""


def test_a_rank_that_fails_on_another_node(mpi_flavour, nodes, name, marker):
    arguments, env = on_hostfile(nodes, mpi_flavour)
    program = (sys.executable, "-c", FAILING, marker)
    done = nodes.run(*arguments, "--", *program, env=env, name=name)
    assert done.returncode == 1
    assert "rank 2 on n2 failed first: exit code 1" in done.stderr
    assert "  | rank 2 has had enough" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_on_any_node(nodes, name, marker, number):
    arguments, _ = on_hostfile(nodes)
    program = (sys.executable, "-c", WAITING_PROGRAM, marker)
    process = nodes.start(*arguments, "--", *program, name=name)
    launching.wait_for_output(nodes.folder, range(4), name)
    (launcher,) = _launchers(name)
    os.kill(launcher, number)
    done = launching.finish(process, nodes.folder, name)
    assert done.returncode in (130, -9, 137), done.stderr


def _launchers(name):
    """Return the launcher itself, without the nsenter that put it on its node."""
    found = []
    for pid in processes_with(name):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"hpctrain" in words and b"nsenter" not in words[0]:
            found.append(pid)
    return found


def test_a_host_that_refuses_ssh_is_named_with_the_step(nodes, name):
    hosts = "n1:1,n9:1"
    done = nodes.run("-H", hosts, "--", "true", name=name)
    assert done.returncode not in (0, 2)
    assert "before 2 of 2 ranks had started" in done.stderr
    assert "n9: ssh fails:" in done.stderr
    assert "Try it by hand: ssh -F" in done.stderr


def test_a_host_whose_sshd_hangs_does_not_hold_the_launch(nodes, name):
    nodes.check_output("n2", "kill", "-STOP", str(nodes.sshd("n2")))
    try:
        limit = ("--set", "launch.start_timeout_s=3", "--set", "launch.grace_s=1")
        arguments, _ = on_hostfile(nodes)
        done = nodes.run(*arguments, *limit, "--", "true", name=name)
    finally:
        nodes.check_output("n2", "kill", "-CONT", str(nodes.sshd("n2")))
    assert done.returncode != 0
    assert "did not report within 3 s" in done.stderr
    assert "n2: ssh fails:" in done.stderr


def test_a_host_without_this_python_is_named(nodes, name):
    python = os.path.realpath(sys.executable)
    nodes.check_output("n2", "mount", "--bind", "/dev/null", python)
    try:
        arguments, _ = on_hostfile(nodes)
        done = nodes.run(*arguments, "--", "true", name=name)
    finally:
        nodes.check_output("n2", "umount", python)
    assert done.returncode != 0
    assert f"n2: no {sys.executable} there" in done.stderr
    assert "n1: " not in done.stderr


def test_a_node_that_is_switched_off(tmp_path, name, marker):
    with nodes_up(tmp_path) as own:
        arguments, _ = on_hostfile(own)
        program = (sys.executable, "-c", WAITING_PROGRAM, marker)
        process = own.start(*arguments, "--", *program, name=name)
        launching.wait_for_output(tmp_path, range(4), name)
        own.power_off("n2")
        done = launching.finish(process, tmp_path, name)
    assert done.returncode not in (0, 130)
    assert "on n2 failed first: its connection closed without a word" in done.stderr
    assert "n2: could not be swept" in done.stderr


def test_a_pulled_cable_ends_the_run(tmp_path, name):
    """Nobody sends a farewell here: only probes of the connections find out."""
    with nodes_up(tmp_path) as own:
        arguments, _ = on_hostfile(own)
        program = (sys.executable, "-c", WAITING_PROGRAM, "611")
        process = own.start(*arguments, "--", *program, name=name)
        launching.wait_for_output(tmp_path, range(4), name)
        own.pull_cable("n2")
        done = launching.finish(process, tmp_path, name)
    assert done.returncode not in (0, 130)
    assert "failed: " in done.stderr
    assert "n2: could not be swept" in done.stderr


def test_a_port_of_its_own_and_users_in_the_hostfile(tmp_path, name):
    with nodes_up(tmp_path, ports={"n2": 2222}) as own:
        assert [h.port for h in parse_hostfile(own.hostfile.read_text()).hosts] == [None, 2222]
        done = own.run("--hosts", "hostfile", "--", "hostname", name=name)
        assert done.returncode == 0, done.stderr
        assert [done.log(rank) for rank in range(4)] == [b"n1\n", b"n1\n", b"n2\n", b"n2\n"]


def test_a_pbs_nodefile(nodes, name):
    nodefile = nodes.folder / "nodefile"
    nodefile.write_text("n1\nn2\n")
    env = {"PBS_NODEFILE": str(nodefile)}
    done = nodes.run("--hosts", str(nodefile), "--", "hostname", name=name, env=env)
    assert done.returncode == 0, done.stderr
    assert (done.log(0), done.log(1)) == (b"n1\n", b"n2\n")


@pytest.mark.needs("horovod", "torch")
def test_the_trainer_trains_across_nodes(nodes, name):
    text = nodes.folder / "text.txt"
    text.write_text("to be or not to be that is the question\n" * 4000)
    prepare = [sys.executable, "-m", "hpctrain", "data", "prepare", "--source", str(text)]
    subprocess.run(
        [*prepare, "--tokenizer", "bytes", "--validation-fraction", "0.1", "--out", "data"],
        cwd=nodes.folder, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    settings = {**small_training.SETTINGS, "data.path": "data", "train.steps": 8}
    overrides = small_training.as_options(settings)
    arguments, _ = on_hostfile(nodes)
    done = nodes.run(*arguments, *overrides, name=name)
    assert done.returncode == 0, done.stderr
    losses = [event["loss"] for event in done.events if event["event"] == "step"]
    assert len(losses) == 8
    assert losses[-1] < losses[0]
    alone = launching.run(nodes.folder, "--np", "1", *overrides, name=f"{name}-1")
    expected = [event["loss"] for event in alone.events if event["event"] == "step"]
    assert losses == pytest.approx(expected, rel=1e-4)
