"""``hpctrain cluster`` with the lab: real nodes, runs from this shell, faults, crashes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import launching
import pytest
from labs import Lab, lab_up, remove
from launching import MPI_PROGRAM, WAITING_PROGRAM, wait_until

from hpctrain.clusters.lab.cpu import free_cpu, limit_cpu

EXCHANGE_PROGRAM = """
import numpy
from mpi4py import MPI
total = MPI.COMM_WORLD.allreduce(numpy.full(1 << 20, 1.0), op=MPI.SUM)  # 8 MB
assert (total == 4.0).all()
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with lab_up(tmp_path_factory.mktemp("lab")) as up:
        yield up


@pytest.fixture
def name():
    return f"t-{uuid.uuid4().hex[:8]}"


def test_nodes_are_machines_of_their_own(lab):
    asked = (
        "hostname; cat /proc/sys/kernel/random/boot_id /etc/machine-id; "
        "readlink /proc/self/ns/net /proc/self/ns/uts /proc/self/ns/pid /proc/self/ns/ipc "
        "/proc/self/ns/mnt; hostname -I"
    )
    here = subprocess.run(["sh", "-c", asked], capture_output=True, text=True, check=True).stdout
    answers = [lab.on("n1", asked).split(), lab.on("n2", asked).split(), here.split()]
    for each in zip(*answers, strict=False):
        assert len(set(each)) == 3, each
    keys = [(lab.path / "nodes" / node / "hostkey.pub").read_text() for node in ("n1", "n2")]
    assert keys[0].split()[1] != keys[1].split()[1]


def test_nodes_share_files_and_no_memory(lab):
    (lab.folder / "seen").write_text("by all")
    assert lab.on("n2", f"cat {lab.folder}/seen") == "by all"
    lab.on("n1", "echo 1 > /dev/shm/mine; echo 1 > $TMPDIR/mine")
    assert lab.on("n2", "ls /dev/shm $TMPDIR").split() == ["/dev/shm:", "/run/tmp:"]
    assert not Path("/dev/shm/mine").exists()


def test_nodes_reach_each_other_by_name_and_nothing_else(lab):
    assert lab.on("n1", f"ssh {lab.host('n2')} ssh n1 hostname") == lab.host("n1")
    routes = lab.on("n1", "ip route").splitlines()
    assert len(routes) == 1, routes  # to the lab's own network
    assert lab.cluster("ssh", "n2", "--", "echo", "two  words") == "two  words\n"


def test_orphans_on_a_node_are_reaped(lab):
    lab.on("n1", "sh -c '(sleep 0.1 &) ; exit 0'")
    wait_until(lambda: "<defunct>" not in lab.on("n1", "sleep 0.3; ps ax"), "orphans to be reaped")


def test_up_again_changes_nothing(lab):
    before = lab.inits()
    assert "is up as asked, 2 nodes" in lab.cluster("up")
    assert lab.inits() == before
    assert lab.hostfile.resolve() == lab.path / "hostfile"


def test_more_nodes_and_fewer_again(lab):
    before = lab.inits()
    lab.cluster("up", "--nodes", "3")
    grown = lab.inits()
    assert {node: grown[node] for node in before} == before
    assert lab.on("n1", "ssh n3 hostname") == lab.host("n3")
    assert lab.cluster("hosts").count("slots=2") == 3
    lab.cluster("up", "--nodes", "2")
    assert lab.inits() == before
    assert not (lab.path / "nodes" / "n3").exists()
    assert [trace for trace in lab.traces() if "n3" in trace] == []


def test_what_is_wrong_is_said_at_once(lab):
    wrong = ("--bandwidth", "1gbps", "--latency", "n9=1ms", "--loss", "2", "--set", "slot=1")
    done = lab.try_cluster("up", *wrong)
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 4
    done = lab.try_cluster("up", "--private-disk")
    assert "cannot be changed while the lab is up" in done.stderr
    done = lab.try_cluster("fault", "n3", "drop")
    assert "no such node, got 'n3'; expected n1 to n2" in done.stderr


def test_a_dry_run_touches_nothing(tmp_path):
    lab = Lab(tmp_path)
    plan = json.loads(lab.cluster("up", "--dry-run", "--json", "--nodes", "3"))
    assert [node["name"] for node in plan["nodes"]] == ["n1", "n2", "n3"]
    assert lab.cluster("up", "--dry-run") == lab.cluster("plan")
    assert lab.traces() == []


@pytest.mark.needs("mpirun")
def test_ranks_of_each_mpi_from_this_shell(mpi_flavour, lab, name):
    given = ("--set", f"launch.mpirun={mpi_flavour.mpirun}")
    given += ("--set", 'launch.forward=["MPI4PY_LIBMPI"]')
    before = lab.received_bytes("n1"), lab.received_bytes("n2")
    program = (sys.executable, "-c", MPI_PROGRAM + EXCHANGE_PROGRAM)
    done = lab.run(*given, "--np", "4", "--", *program, env=mpi_flavour.env, name=name)
    assert done.returncode == 0, done.stderr
    for rank, node in enumerate(["n1", "n1", "n2", "n2"]):
        said = done.log(rank).decode()
        assert said == f"rank {rank} of 4 sum 10 local {rank % 2} on {lab.host(node)}\n"
    received = [lab.received_bytes(n) - b for n, b in zip(("n1", "n2"), before, strict=True)]
    assert min(received) > 8 << 20, received  # over the cable, not through shared memory


@pytest.mark.needs("mpirun")
def test_the_hostfile_works_as_it_stands(lab, name):
    arguments = ("--np", "4", "--hosts", "hostfile", "--", "hostname")
    done = launching.run(lab.folder, *arguments, name=name)
    assert done.returncode == 0, done.stderr
    assert done.log(2).decode() == f"{lab.host('n2')}\n"


def test_a_cluster_that_is_not_there(lab):
    wrong = launching.run(lab.folder, "--cluster", lab.name[:-1], "--", "true", env=lab.env)
    assert wrong.returncode == 2
    assert f"--cluster: no such cluster, got '{lab.name[:-1]}'; expected one of" in wrong.stderr
    both = launching.run(lab.folder, "--cluster", lab.name, "-H", "a", "--", "true", env=lab.env)
    assert "--cluster is given with --hosts or -H" in both.stderr


TRAINING = {
    "data.path": "data", "train.device": "cpu", "train.steps": 6, "model.d_model": 32,
    "model.num_layers": 1, "model.seq_len": 32, "train.eval_sequences": 2,
    "train.global_batch_size": 8, "optim.warmup_steps": 2, "optim.lr": 0.01,
}  # fmt: skip


def prepare_data(folder):
    (folder / "text.txt").write_text("to be or not to be that is the question\n" * 4000)
    prepare = [sys.executable, "-m", "hpctrain", "data", "prepare", "--source", "text.txt"]
    subprocess.run(
        [*prepare, "--tokenizer", "bytes", "--validation-fraction", "0.1", "--out", "data"],
        cwd=folder, check=True, capture_output=True, timeout=60,
    )  # fmt: skip


def train(lab, name, *more, **settings):
    given = {**TRAINING, **{key.replace("__", "."): value for key, value in settings.items()}}
    overrides = [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
    done = lab.run("--np", "4", *more, *overrides, name=name)
    assert done.returncode == 0, done.stderr
    return done, [event["loss"] for event in done.events if event["event"] == "step"]


@pytest.mark.needs("mpirun", "horovod", "torch")
def test_training_on_a_shared_disk_and_on_private_ones(lab, name, tmp_path):
    prepare_data(lab.folder)
    prepare_data(tmp_path)
    shared, losses = train(lab, name)
    assert losses[-1] < losses[0]
    assert (shared.path / "checkpoints" / "latest").exists()
    with lab_up(tmp_path, "--private-disk") as private:
        lab.on("n1", "true")  # side by side
        done, same = train(private, "r")
        assert same == pytest.approx(losses, rel=1e-4)
        # Ranks write on their own node; the launcher's part of the run is here.
        assert not (done.path / "checkpoints").exists()
        there = private.on("n1", f"ls {done.path}/checkpoints").split()
        assert "latest" in there
        assert private.on("n2", f"ls {tmp_path}/runs") == ""
        # Node 1 has its checkpoint still after a power cut, and the run goes on from it.
        private.cluster("fault", "n1", "poweroff")
        private.cluster("up")
        assert private.on("n1", f"ls {done.path}/checkpoints").split() == there
        resumed, _ = train(private, "r", "--resume", train__steps=8)
        assert resumed.event("step")["step"] == 8


def test_a_private_disk_is_nobody_elses(tmp_path):
    (tmp_path / "given").write_text("from the image")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "old").write_text("not on the nodes")
    with lab_up(tmp_path, "--private-disk") as lab:
        assert lab.on("n1", f"cat {tmp_path}/given; ls {tmp_path}/runs") == "from the image"
        lab.on("n1", f"echo 1 > {tmp_path}/new; echo 2 > {tmp_path}/given; rm -f /etc/hostname")
        assert lab.on("n2", f"cat {tmp_path}/given") == "from the image"
        assert "new" not in lab.on("n2", f"ls {tmp_path}").split()
        assert not (tmp_path / "new").exists()
        assert (tmp_path / "given").read_text() == "from the image"
        mounted = lab.on("n1", "cut -d' ' -f2 /proc/mounts").split()
        assert mounted[0] == "/"  # its own root, and no way back to this machine's
        assert not [path for path in mounted if "before" in path or str(lab.path) in path]


def test_a_folder_that_is_hidden_behind_a_link_is_not_made_on_this_machine(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with lab_up(tmp_path, "--nodes", "1", "--private-disk", "--set", 'hide=["link/new"]') as lab:
        lab.on("n1", f"touch {tmp_path}/link/new/there")
        assert lab.on("n1", f"ls {tmp_path}/elsewhere/new") == "there"
        assert list((tmp_path / "elsewhere").iterdir()) == []


def figures(text):
    """Return the measured round trips (ms), bandwidths (bit/s) and losses (%) in up's output."""
    unit = {"Gbit/s": 1e9, "Mbit/s": 1e6, "kbit/s": 1e3}
    found = re.findall(r"measured +(\S+) (\S+) +(\S+) ms +(\S+)", text)
    assert found, text
    return [
        (float(trip), float(rate) * unit[u], None if loss == "-" else float(loss))
        for rate, u, trip, loss in found
    ]


def test_shaped_links_of_all_nodes_and_of_one(tmp_path):
    shape = ("--bandwidth", "200mbit", "--latency", "4ms", "--latency", "n2=10ms")
    with lab_up(tmp_path) as lab:
        inits = lab.inits()
        said = lab.cluster("up", *shape, "--loss", "3%")
        assert "asked      200 Mbit/s     14 ms        3 %" in said
        for round_trip_ms, bit_per_s, loss in figures(said):
            assert 14 <= round_trip_ms < 50  # 14, and what a busy machine adds
            assert bit_per_s < 300e6
            assert 1 < loss < 6
        assert lab.inits() == inits  # another cable for the same nodes
        said = lab.cluster("up", "--loss", "off", "--latency", "off", "--bandwidth", "20mbit")
        for round_trip_ms, bit_per_s, loss in figures(said):
            assert round_trip_ms < 14
            assert 10e6 < bit_per_s < 30e6  # a reader that comes late finds more
            assert loss is None
        assert not [trace for trace in lab.traces() if "cable" in trace]


def test_faults_of_a_link(lab):
    def hears(node, other):
        line = f"ssh -o ConnectTimeout=2 {other} hostname"
        return lab.try_on(node, line).returncode == 0

    assert hears("n1", "n2")
    try:
        for fault in ("link-down", "drop"):
            lab.cluster("fault", "n2", fault)
            assert lab.states() == {"n1": "up", "n2": "no answer"}
            assert f"faults: {fault}" in lab.status()["nodes"][1]["detail"]
            lab.cluster("fault", lab.host("n2"), "link-up")
            assert lab.states() == {"n1": "up", "n2": "up"}
        lab.cluster("fault", "n2", "isolate")
        assert lab.states() == {"n1": "up", "n2": "up"}
        assert not hears("n1", "n2")
        lab.cluster("fault", "n2", "link-up", "slow=5mbit")
        assert hears("n1", "n2")
        shaped = subprocess.run(
            ["tc", "-n", f"hpctrain.{lab.name}.n2", "qdisc", "show", "dev", "eth0"],
            capture_output=True, text=True, check=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin"},
        ).stdout  # fmt: skip
        assert "rate 5Mbit" in shaped
    finally:
        lab.cluster("fault", "n2", "link-up", "slow=off")
    assert "faults" not in lab.status()["nodes"][1]["detail"]


BUSY = """
import os, sys, time
end_s, others = time.time() + 1, int(sys.argv[1]) - 1
for _ in range(others):
    if os.fork() == 0:
        while time.time() < end_s: pass
        os._exit(0)
while time.time() < end_s: pass
for _ in range(others):
    os.wait()
print(sum(os.times()[:4]))
"""  # what that many busy processes get in a second, in seconds of processors


def test_a_node_with_a_part_of_the_cores(lab):
    (lab.folder / "busy.py").write_text(BUSY)
    try:
        lab.cluster("fault", "n2", "cpu=10%")
        cores = os.cpu_count()
        used_s = float(lab.on("n2", f"{sys.executable} {lab.folder}/busy.py {cores}"))
        assert used_s < 0.5 * cores, cores  # a tenth, and some for the start
    finally:
        lab.cluster("fault", "n2", "cpu=off")
    assert [trace for trace in lab.traces() if trace.startswith("group")] == []


def test_the_stand_in_for_a_control_group(lab, monkeypatch):
    monkeypatch.setattr("hpctrain.clusters.lab.cpu.CPU_GROUP_FOLDERS", ())
    (lab.folder / "busy.py").write_text(BUSY)
    try:
        assert "stand-in" in limit_cpu(lab.name, "n2", 0.3, os.environ["PATH"])
        wait_until(lambda: cycles(lab), "the stand-in to start")
        # Stopped for the rest of the time, but while sshd and python were being started.
        assert float(lab.on("n2", f"{sys.executable} {lab.folder}/busy.py 1")) < 0.7
    finally:
        free_cpu(lab.name, "n2")
    assert not cycles(lab)
    states = lab.on("n2", "ps ax -o stat=").split()
    assert not [state for state in states if state.startswith("T")]


def cycles(lab):
    return [trace for trace in lab.traces() if "duty_cycle" in trace]


@pytest.mark.needs("mpirun")
def test_a_run_that_loses_a_node_says_which(lab, tmp_path, name):
    """Nobody sends a farewell here: only probes of the connections find out.

    Three runs at once, each on a lab of its own, for it takes its time.
    """
    program = ("--np", "4", "--", sys.executable, "-c", WAITING_PROGRAM, "621.05170")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    with lab_up(tmp_path / "a") as other, lab_up(tmp_path / "b") as silent:
        cases = [(lab, "poweroff"), (other, "link-down"), (silent, "drop")]
        runs = [each.start_run(*program, name=name) for each, _ in cases]
        try:
            for each, fault in cases:
                launching.wait_for_output(each.folder, range(4), name)
                each.cluster("fault", "n2", fault)
            for (each, _), process in zip(cases, runs, strict=True):
                done = launching.finish(process, each.folder, name)
                assert done.returncode not in (0, 130)
                assert re.search(rf"on {each.host('n2')} failed first", done.stderr), done.stderr
                assert f"{each.host('n2')}: could not be swept" in done.stderr
            silent.cluster("fault", "n2", "link-up")
            assert silent.states() == {"n1": "up", "n2": "up"}
            # The node was alive all the time: its ranks have found out, too.
            wait_until(lambda: "621.05170" not in silent.on("n2", "ps ax"), "ranks to end", 60)
        finally:
            for process in runs:
                process.kill()
                process.communicate()
            assert lab.states()["n2"] == "off"
            lab.cluster("up")
    assert lab.states() == {"n1": "up", "n2": "up"}


@pytest.mark.parametrize("moment", ["switch", "n1", "nodes/n2/log"])
def test_a_crash_of_the_maker_leaves_nothing_that_down_does_not_find(tmp_path, moment):
    lab = Lab(tmp_path)
    sign = (
        lab.path / moment if "/" in moment else Path("/run/netns", f"hpctrain.{lab.name}.{moment}")
    )
    process = lab.start("up", "--latency", "1ms")
    try:
        wait_until(sign.exists, f"{sign} to be there")
        process.kill()
        process.communicate()
        assert lab.status()["state"] == "half-made"
        assert lab.status()["leftovers"]
        if moment == "n1":  # even its own notes are lost
            shutil.rmtree(lab.path)
            assert lab.status()["state"] == "leftover"
    finally:
        process.kill()
        remove(lab)


def test_up_after_a_crash_begins_anew(tmp_path):
    lab = Lab(tmp_path)
    process = lab.start("up", "--nodes", "8")  # many, so that it is caught at work
    try:
        wait_until((lab.path / "nodes" / "n1" / "log").exists, "the first node")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert "first what is left of an earlier lab" in lab.cluster("up", "--nodes", "2")
        assert lab.states() == {"n1": "up", "n2": "up"}
    finally:
        process.kill()
        remove(lab)


def test_two_at_once_under_one_name(tmp_path):
    lab = Lab(tmp_path)
    try:
        both = [lab.start("up", "--nodes", "1"), lab.start("up", "--nodes", "1")]
        ended = [(process.communicate()[1], process.returncode) for process in both]
        codes = sorted(code for _, code in ended)
        # The second one may come late enough to find the lab up.
        assert codes in ([0, 1], [0, 0]), ended
        assert codes == [0, 0] or any("another hpctrain is making" in err for err, _ in ended)
        assert lab.states() == {"n1": "up"}
    finally:
        remove(lab)


def test_labs_side_by_side(lab, tmp_path):
    others = [Lab(tmp_path), Lab(tmp_path)]
    try:
        started = [other.start("up", "--nodes", "1") for other in others]
        for process in started:
            assert process.wait(timeout=60) == 0, process.communicate()
        networks = {each.address("n1").rpartition(".")[0] for each in (lab, *others)}
        assert len(networks) == 3
        assert others[0].on("n1", "hostname") == others[0].host("n1")
        line = f"ssh -o BatchMode=yes -o ConnectTimeout=2 {lab.address('n1')} true"
        assert others[0].try_on("n1", line).returncode != 0
    finally:
        for process in started:
            process.communicate()
        for other in others:
            other.cluster("down")
    assert [other.traces() for other in others] == [[], []]
    assert lab.states() == {"n1": "up", "n2": "up"}


def test_a_hostfile_of_ones_own_stays(tmp_path):
    (tmp_path / "hostfile").write_text("node1 slots=4\n")
    lab = Lab(tmp_path)
    try:
        done = lab.try_cluster("up", "--nodes", "1")
        assert "a file of your own and stays as it is" in done.stderr
    finally:
        remove(lab)
    assert (tmp_path / "hostfile").read_text() == "node1 slots=4\n"
