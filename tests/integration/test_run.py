"""``hpctrain run`` on this machine, with a real mpirun of each MPI."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import launching
import pytest
import small_training
from launching import MPI_PROGRAM, WAITING_PROGRAM, processes_with, run

from hpctrain.launch.supervisor import DRAIN_LIMIT_S
from hpctrain.rundir import summarize_run

pytestmark = pytest.mark.needs("mpirun")

HOROVOD_PROGRAM = """
import torch, horovod.torch as hvd
hvd.init()
total = hvd.allreduce(torch.ones(3) * (hvd.rank() + 1), op=hvd.Sum)
assert total.tolist() == [3.0] * 3, total
print("rank", hvd.rank(), "of", hvd.size(), "local", hvd.local_rank(), flush=True)
hvd.shutdown()
"""


@pytest.fixture
def marker():
    """A word for the command lines of this test's processes; none may be left at the end."""
    word = f"{600 + uuid.uuid4().int % 10**6 / 1e6:.6f}"
    yield word
    launching.wait_until(lambda: not processes_with(word), f"processes left: {word}", 10)


def with_flavour(flavour):
    return {"env": flavour.env}, ("--set", f"launch.mpirun={flavour.mpirun}")


# -- every MPI -----------------------------------------------------------------------------------


def test_ranks_find_each_other(mpi_flavour, tmp_path):
    more, arguments = with_flavour(mpi_flavour)
    done = run(tmp_path, "--np", "2", *arguments, "--", sys.executable, "-c", MPI_PROGRAM, **more)
    assert done.returncode == 0, done.stderr
    host = os.uname().nodename
    for rank in (0, 1):
        expected = f"rank {rank} of 2 sum 3 local {rank} on {host}\n"
        assert done.log(rank).decode() == expected
        assert done.rank_events(rank)[-1]["exit_code"] == 0
    assert done.stdout == f"rank 0 of 2 sum 3 local 0 on {host}\n"
    assert done.event("run_finished")["state"] == "done"


FAILING = """
import os, signal, subprocess, sys, time
subprocess.Popen(["sleep", sys.argv[2]])
print("rank", os.environ["RANK"], "is up", flush=True)
if os.environ["RANK"] == "1":
    print("about to fail", file=sys.stderr, flush=True)
    if sys.argv[1] == "exit":
        sys.exit(7)
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""


@pytest.mark.parametrize(("how", "code", "reason"), [
    ("exit", 7, "exit code 7"), ("kill", 137, "signal 9 (SIGKILL)"),
])  # fmt: skip
def test_the_first_rank_that_fails_is_named(mpi_flavour, tmp_path, marker, how, code, reason):
    more, arguments = with_flavour(mpi_flavour)
    program = (sys.executable, "-c", FAILING, how, marker)
    done = run(tmp_path, "--np", "2", *arguments, "--", *program, **more)
    assert done.returncode == code, done.stderr
    assert f"rank 1 on {os.uname().nodename} failed first: {reason}" in done.stderr
    assert "  | about to fail" in done.stderr
    assert f"[rank 1 {os.uname().nodename}] about to fail" in done.stderr
    assert "log: runs/r/logs/rank-00001.log" in done.stderr
    failure = done.event("run_finished")["failure"]
    assert (failure["rank"], failure["exit_code"]) == (1, code)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_rank(mpi_flavour, tmp_path, marker, number):
    more, arguments = with_flavour(mpi_flavour)
    program = (sys.executable, "-c", WAITING_PROGRAM, marker)
    process = launching.start(tmp_path, "--np", "2", *arguments, "--", *program, **more)
    launching.wait_for_output(tmp_path, [0, 1])
    process.send_signal(number)
    done = launching.finish(process, tmp_path)
    assert done.returncode == 128 + number, done.stderr
    assert "stopped by" in done.stderr
    assert done.event("run_finished")["state"] == "stopped"


def test_the_dry_run_is_what_runs(mpi_flavour, tmp_path):
    more, arguments = with_flavour(mpi_flavour)
    program = ("--np", "2", *arguments, "--", sys.executable, "-c", MPI_PROGRAM)
    dry = run(tmp_path, "--dry-run", *program, **more)
    assert dry.returncode == 0, dry.stderr
    assert not dry.path.exists()
    environ = {**os.environ, **more["env"]}
    by_hand = subprocess.run(
        ["sh", "-c", dry.stdout], cwd=tmp_path, env=environ, capture_output=True, text=True,
        timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    # Not line by line: without the shims, some MPIs mix what ranks print.
    for rank in (0, 1):
        assert f"rank {rank} of 2 sum 3" in by_hand.stdout, by_hand.stderr
    done = run(tmp_path, *program, **more)
    planned = json.loads((done.path / "plan.json").read_text())
    assert planned == json.loads(run(tmp_path, "--dry-run", "--json", *program, **more).stdout)


# -- Horovod, on the Open MPIs ---------------------------------------------------------------------


@pytest.mark.needs("horovod")
def test_horovod_with_this_environments_mpi(tmp_path):
    done = run(tmp_path, "--np", "2", "--", sys.executable, "-c", HOROVOD_PROGRAM)
    assert done.returncode == 0, done.stderr
    assert done.log(1) == b"rank 1 of 2 local 1\n"


def test_horovod_with_open_mpi_4(openmpi4, horovod_openmpi4, tmp_path):
    more, arguments = with_flavour(openmpi4)
    more["env"] = {**more["env"], "PYTHONPATH": str(horovod_openmpi4)}
    program = (sys.executable, "-c", HOROVOD_PROGRAM)
    done = run(tmp_path, "--np", "2", *arguments, "--", *program, **more)
    assert done.returncode == 0, done.stderr
    assert done.log(1) == b"rank 1 of 2 local 1\n"


def test_a_program_of_another_mpi_is_ended_not_run_n_times(openmpi5, mpich, tmp_path):
    alone = "from mpi4py import MPI; import time; time.sleep(60)"
    environ = {**mpich.env, "MPI4PY_LIBMPI": openmpi5.libmpi}
    arguments = ("--np", "2", "--set", f"launch.mpirun={mpich.mpirun}")
    done = run(tmp_path, *arguments, "--", sys.executable, "-c", alone, env=environ)
    assert done.returncode == 1
    assert "every rank would run alone" in done.stderr
    assert "(Open MPI) under the mpirun of MPICH" in done.stderr


@pytest.mark.needs("horovod")
def test_the_trainer_is_not_started_by_another_mpi_than_horovods(mpich, tmp_path):
    done = run(tmp_path, "--np", "2", "--set", f"launch.mpirun={mpich.mpirun}", env=mpich.env)
    assert done.returncode == 2
    assert "Horovod was built for another MPI, got mpich 4.3.2" in done.stderr
    assert not done.path.exists()


# -- output --------------------------------------------------------------------------------------

BURST = """
import os, sys
rank = os.environ["RANK"].encode()
for number in range(20000):
    sys.stdout.buffer.write(rank + b" \\xff\\x00 %d\\n" % number)
sys.stdout.buffer.write(b"no end")
sys.stdout.buffer.flush()
"""


def expected_burst(rank):
    return b"".join(b"%d \xff\x00 %d\n" % (rank, n) for n in range(20000)) + b"no end"


def test_every_byte_of_every_rank_is_in_its_log(tmp_path):
    done = run(tmp_path, "--np", "2", "--", sys.executable, "-c", BURST)
    assert done.returncode == 0, done.stderr
    assert [done.log(rank) == expected_burst(rank) for rank in (0, 1)] == [True, True]
    assert done.stdout.encode(errors="replace").count(b"\n") == 20000


def test_a_reader_that_takes_its_time_loses_nothing_and_ends_nothing(tmp_path):
    """More output than all buffers hold, and for longer than any of our limits nobody reads."""
    program = "import sys; sys.stdout.write('x' * 9_000_000)"
    limits = ("--set", "launch.grace_s=0.2")
    process = launching.start(tmp_path, "--np", "1", *limits, "--", sys.executable, "-c", program)
    launching.wait_for_output(tmp_path, [0])
    time.sleep(DRAIN_LIMIT_S + 1.0)
    done = launching.finish(process, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (len(done.stdout), len(done.log(0))) == (9_000_000, 9_000_000)


@pytest.mark.parametrize("redirect", ["2>&1 | head -1", "2>/dev/full", "| true"])
def test_a_reader_that_leaves_does_not_end_the_run(tmp_path, redirect):
    program = "import hpctrain\nfor n in range(2000): hpctrain.report_step(n); print('x' * 200)"
    hpctrain = f"{sys.executable} -m hpctrain run --name r --np 2 -- {sys.executable} -c"
    line = f'{hpctrain} "$PROGRAM" {redirect}'
    subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env={**os.environ, "PROGRAM": program}, check=False,
        capture_output=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    summary = tmp_path / "runs" / "r"
    launching.wait_until(lambda: summarize_run(summary).state != "running", "the run to end")
    assert summarize_run(summary).state == "done"
    assert summarize_run(summary).step == 1999


def test_a_hangup_that_is_ignored_stays_ignored(tmp_path, marker):
    program = (sys.executable, "-c", WAITING_PROGRAM, marker)
    process = launching.start(tmp_path, "--np", "1", "--", *program, prefix=["nohup"])
    launching.wait_for_output(tmp_path, [0])
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    assert launching.finish(process, tmp_path).returncode == 130


def test_whatever_a_program_reports_the_run_ends_well(tmp_path):
    program = (
        "import hpctrain, os\n"
        "hpctrain.report_step(1 if os.environ['RANK'] == '0' else 'epoch 1')\n"
        "hpctrain.report_step(2, text='x' * 9_000_000)\n"
        "hpctrain.report_step(3)"
    )
    done = run(tmp_path, "--np", "2", "--", sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    assert "an event was dropped" in done.log(0).decode()
    assert summarize_run(done.path).step == 3


def test_a_pasted_dry_run_does_not_take_its_name(tmp_path):
    arguments = ("--np", "2", "-H", f"localhost:1,{os.uname().nodename}:1", "--", "true")
    dry = run(tmp_path, "--dry-run", *arguments)
    subprocess.run(["sh", "-c", dry.stdout], cwd=tmp_path, check=True, timeout=60)
    assert run(tmp_path, *arguments).returncode == 0


def test_what_is_piped_in_is_said_to_reach_nobody(tmp_path):
    argv = [sys.executable, "-m", "hpctrain", "run", "--np", "1", "--", "cat"]
    done = subprocess.run(
        argv, cwd=tmp_path, input="hello", capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "standard input reaches no rank" in done.stderr


DEAF_LAUNCHER = """
import sys
import hpctrain.launch.supervisor as supervisor
class Deaf(supervisor.ChannelServer):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.address = "127.0.0.1:9"  # the discard port: nobody listens
supervisor.ChannelServer = Deaf
from hpctrain.cli import main
main(sys.argv[1:])
"""


def test_mpiruns_own_forwarding_serves_where_the_launcher_cannot_be_reached(tmp_path):
    program = MPI_PROGRAM + "import sys, hpctrain\nhpctrain.report_step(3, loss=1.5)\nsys.exit(5)"
    argv = [sys.executable, "-c", DEAF_LAUNCHER, "run", "--name", "r", "--np", "2", "--"]
    done = subprocess.run(
        [*argv, sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "cannot reach the launcher at 127.0.0.1:9" in done.stderr
    ended = launching.Done(done.returncode, done.stdout, done.stderr, tmp_path / "runs" / "r")
    assert ended.log(0).startswith(b"rank 0 of 2 sum 3")
    assert ended.log(1).startswith(b"rank 1 of 2 sum 3")
    assert ended.event("step")["loss"] == 1.5
    assert done.stdout.startswith("rank 0 of 2 sum 3")


def test_steps_of_a_foreign_program_become_events(tmp_path):
    program = "import hpctrain\nfor step in (1, 2): hpctrain.report_step(step, loss=0.5)"
    done = run(tmp_path, "--np", "2", "--", sys.executable, "-c", program)
    steps = [(e["step"], e["loss"]) for e in done.events if e["event"] == "step"]
    assert steps == [(1, 0.5), (2, 0.5)]
    assert [e["step"] for e in done.rank_events(1) if e["event"] == "step"] == [1, 2]
    assert summarize_run(done.path).step == 2


# -- names and attempts --------------------------------------------------------------------------


def test_a_name_is_used_once_and_resumed_by_attempts(tmp_path):
    assert run(tmp_path, "--np", "1", "--", "true").returncode == 0
    again = run(tmp_path, "--np", "1", "--", "true")
    assert again.returncode == 2
    assert "the name is taken" in again.stderr
    third = run(tmp_path, "--np", "1", "--resume", "--", "sh", "-c", "exit 3")
    assert third.returncode == 3
    assert [e["attempt"] for e in third.events if e["event"] == "attempt"] == [1, 2]
    assert [e["exit_code"] for e in third.events if e["event"] == "run_finished"] == [0, 3]


def test_a_run_that_runs_is_not_started_twice_nor_removed(tmp_path, marker):
    program = (sys.executable, "-c", WAITING_PROGRAM, marker)
    process = launching.start(tmp_path, "--np", "1", "--", *program)
    launching.wait_for_output(tmp_path, [0])
    second = run(tmp_path, "--np", "1", "--resume", "--", "true")
    assert second.returncode == 2
    assert "another hpctrain is running it" in second.stderr
    remove = [sys.executable, "-m", "hpctrain", "runs", "remove", "--yes", "r"]
    removed = subprocess.run(remove, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert removed.returncode == 2
    assert "it is running" in removed.stderr
    process.send_signal(signal.SIGINT)
    assert launching.finish(process, tmp_path).returncode == 130


def test_no_rank_outlives_a_killed_launcher(tmp_path, marker):
    program = (sys.executable, "-c", WAITING_PROGRAM, marker)
    process = launching.start(tmp_path, "--np", "2", "--", *program)
    launching.wait_for_output(tmp_path, [0, 1])
    process.kill()
    process.wait()  # the marker's fixture then waits for the ranks to be gone
    process.stdout.close()
    process.stderr.close()
    launching.wait_until(lambda: not processes_with(marker), "ranks to end")
    assert summarize_run(tmp_path / "runs" / "r").state == "died"


def test_no_rank_outlives_a_killed_mpirun(mpi_flavour, tmp_path, marker):
    more, arguments = with_flavour(mpi_flavour)
    program = (sys.executable, "-c", WAITING_PROGRAM, marker)
    process = launching.start(tmp_path, "--np", "2", *arguments, "--", *program, **more)
    launching.wait_for_output(tmp_path, [0, 1])
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    children_pid = children.read_text().strip()
    os.kill(int(children_pid), signal.SIGKILL)
    done = launching.finish(process, tmp_path)
    assert done.returncode not in (0, 130), done.stderr
    assert "failed: " in done.stderr
    left = [path for path in Path(os.environ["TMPDIR"]).rglob("*") if children_pid in path.name]
    assert left == []  # else the next mpirun of this PID ends before it has begun


# -- the trainer ---------------------------------------------------------------------------------


@pytest.mark.needs("horovod", "torch")
def test_the_trainer_trains_on_two_ranks(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 4000)
    prepare = [sys.executable, "-m", "hpctrain", "data", "prepare", "--source", str(text)]
    subprocess.run(
        [*prepare, "--tokenizer", "bytes", "--validation-fraction", "0.1", "--out", "data"],
        cwd=tmp_path, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    settings = {**small_training.SETTINGS, "data.path": "data", "train.steps": 12}
    done = run(tmp_path, "--np", "2", *small_training.as_options(settings))
    assert done.returncode == 0, done.stderr
    losses = [event["loss"] for event in done.events if event["event"] == "step"]
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.5
    assert done.event("eval")["val_loss"] < losses[0]
    assert [e["step"] for e in done.rank_events(1) if e["event"] == "rank_step"] == list(
        range(1, 13)
    )
    assert "done in" in done.stderr
    assert "runs/r" in done.stderr
    assert "steps = 12" in (done.path / "run.toml").read_text()


SHADOWS = ("socket.py", "json.py", "random.py", "hpctrain.py", "selectors.py")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="python -P came with Python 3.11")
def test_files_beside_the_users_program_do_not_stand_in_for_ours(tmp_path):
    for name in SHADOWS:
        (tmp_path / name).write_text("raise SystemExit('the wrong module')\n")
    # As the installed command starts: without the working directory on Python's path.
    start = "from hpctrain.cli import main; main()"
    argv = [sys.executable, "-P", "-c", start, "run", "--np", "2", "--", "echo", "fine"]
    done = subprocess.run(
        argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_a_resumed_command_is_the_same_command(tmp_path):
    assert run(tmp_path, "--np", "1", "--", "echo", "one two").returncode == 0
    again = run(tmp_path, "--np", "1", "--resume")
    assert (again.returncode, again.stdout) == (0, "one two\n")
    other = run(tmp_path, "--np", "1", "--resume", "--", "echo", "three")
    assert "ran another program before: echo 'one two'" in other.stderr


def test_what_follows_the_program_is_the_programs(tmp_path):
    done = run(tmp_path, "--np", "1", "echo", "--np", "7", "--name", "x", "--no-such-option")
    assert done.stdout == "--np 7 --name x --no-such-option\n"
