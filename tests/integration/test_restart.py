"""The restart loop, with real ranks under mpirun: killed, refused, stopped, and resumed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import launching
import pytest
import restarting
from restarting import STEPS, events_named, hooked, losses, settings, weights

from hpctrain.goodput import read_goodput
from hpctrain.launch.attempts import MOST_WITHOUT_PROGRESS
from hpctrain.rundir import summarize_run

pytestmark = pytest.mark.needs("mpirun")
training = pytest.mark.needs("torch", "horovod")

# As hpctrain, but it waits less between attempts.
IMPATIENT = """
import sys
import hpctrain.launch.attempts as attempts
attempts.BACKOFF_S = (0.1,)
from hpctrain.cli import main
main(sys.argv[1:])
"""


def run_impatient(folder, *arguments, env=None):
    argv = [sys.executable, "-c", IMPATIENT, "run", "--name", "r", *arguments]
    done = subprocess.run(
        argv, cwd=folder, env={**os.environ, **(env or {})}, capture_output=True, text=True,
        timeout=launching.TIMEOUT_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return launching.Done(done.returncode, done.stdout, done.stderr, folder / "runs" / "r")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with data, the hook, and the run `full` that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("base")
    restarting.prepare(folder)
    done = launching.run(folder, "--np", "2", *settings(), env=hooked(folder), name="full")
    assert done.returncode == 0, done.stderr
    return folder


def train(base, folder, *arguments, acts=(), **more):
    """Return what starts a training on two ranks that is tried again."""
    data = {"data.path": base / "data", **more}
    env = {**hooked(base, *acts), "HOOK_FOLDER": str(folder)}
    return ("--np", "2", "--max-restarts", "3", *arguments, *settings(**data)), env


# -- the trainer -----------------------------------------------------------------------------------


@training
def test_a_killed_rank_costs_the_steps_since_the_checkpoint_and_nothing_else(base, tmp_path):
    acts = [(1, 1, 6, "kill"), (2, 0, 10, "kill")]
    arguments, env = train(base, tmp_path, acts=acts)
    done = run_impatient(tmp_path, *arguments, env=env)
    assert done.returncode == 0, done.stderr
    assert losses(done.path) == losses(base / "runs" / "full")
    assert weights(done.path, tmp_path) == weights(base / "runs" / "full", tmp_path)
    attempts = events_named(done, "attempt")
    assert [event["attempt"] for event in attempts] == [1, 2, 3]
    assert [event["reason"].partition(":")[0] for event in attempts] == [
        "first", "restart 1", "restart 2",
    ]  # fmt: skip
    ends = [event["state"] for event in events_named(done, "attempt_finished")]
    assert ends == ["failed", "failed", "done"]
    restarts = events_named(done, "restart")
    assert ["signal 9 (SIGKILL)" in event["reason"] for event in restarts] == [True, True]
    (end,) = events_named(done, "run_finished")
    assert (end["state"], end["exit_code"], end["restarts"]) == ("done", 0, 2)
    assert "restart 1 of 3 in 0.1 s" in done.stderr
    goodput = read_goodput(done.path)
    assert (goodput.steps, goodput.attempts) == (STEPS, 3)
    # Steps 5 and 6, 9 and 10; of a rank that is killed the last is perhaps not heard.
    assert 2 <= goodput.steps_lost <= 4
    assert goodput.losses_s["restart"] > 0
    assert end["goodput"]["productive_s"] > 0
    assert "goodput " in done.stderr


@training
def test_what_needs_a_person_is_not_tried_again(base, tmp_path):
    arguments, env = train(base, tmp_path, **{"data.path": tmp_path / "nowhere"})
    done = run_impatient(tmp_path, *arguments, env=env)
    assert done.returncode == 1
    assert "not tried again: " in done.stderr
    end = done.event("run_finished")
    assert (end["retryable"], end["restarts"]) == (False, 0)
    assert str(tmp_path / "nowhere") in end["final_reason"]
    assert len(events_named(done, "attempt")) == 1


@training
def test_a_loss_that_is_not_a_number_ends_the_run(base, tmp_path):
    broken = {"optim.lr": 1e30, "optim.clip_norm": 0, "optim.warmup_steps": 0}
    arguments, env = train(base, tmp_path, **broken)
    done = run_impatient(tmp_path, *arguments, env=env)
    assert done.returncode == 1
    assert len(events_named(done, "attempt")) == 1
    assert "is not finite" in done.event("run_finished")["final_reason"]


@training
def test_three_restarts_without_progress_are_enough(base, tmp_path):
    acts = [(0, 1, 6, "kill")]
    arguments, env = train(base, tmp_path, "--max-restarts", "9", acts=acts)
    done = run_impatient(tmp_path, *arguments, env=env)
    assert done.returncode == 1  # no scheduler is to try again what gets nowhere
    assert "given up: 3 restarts in a row got no further than step " in done.stderr
    end = done.event("run_finished")
    assert (end["retryable"], end["restarts"]) == (False, MOST_WITHOUT_PROGRESS)
    assert len(events_named(done, "attempt")) == 1 + MOST_WITHOUT_PROGRESS


@training
@pytest.mark.parametrize("how", ["signal", "file", "start"])
def test_whoever_stops_it_while_it_waits_can_go_on(base, tmp_path, how):
    arguments, env = train(base, tmp_path, acts=[(1, 1, 6, "kill")])
    process = launching.start(tmp_path, *arguments, env=env)  # waits for three seconds
    run_path = tmp_path / "runs" / "r"
    wait_for_event(run_path, "attempt_finished")
    if how == "start":  # of the second attempt: its ranks have not begun
        begun = run_path / "events.jsonl"
        launching.wait_until(lambda: begun.read_text().count('"event":"attempt"') == 2, "attempt 2")
    if how == "file":
        (run_path / "SAVE").touch()
    else:
        process.send_signal(signal.SIGTERM)
    done = launching.finish(process, tmp_path)
    assert done.returncode == 75, done.stderr
    end = done.event("run_finished")
    assert (end["state"], end["retryable"]) == ("resumable", True)
    assert len(events_named(done, "attempt")) == (2 if how == "start" else 1)
    assert not (run_path / "SAVE").exists()
    resumed = launching.run(tmp_path, "--resume", env=hooked(base))
    assert resumed.returncode == 0, resumed.stderr
    assert losses(resumed.path) == losses(base / "runs" / "full")


@training
def test_a_killed_launcher_is_started_again_at_once(base, tmp_path):
    """Its ranks are deaf to SIGTERM, so that they are there when the next launcher comes."""
    acts = [(1, rank, 6, "deaf") for rank in (0, 1)]
    grace = {"launch.grace_s": 3}
    arguments, env = train(base, tmp_path, acts=acts, **grace)
    process = launching.start(tmp_path, *arguments, env=env)
    gates = [tmp_path / f"gate-1-{rank}" for rank in (0, 1)]
    launching.wait_until(lambda: all(gate.exists() for gate in gates), "ranks at their gate")
    left = ranks_of(tmp_path / "runs" / "r")
    process.kill()
    process.communicate()
    run_path = tmp_path / "runs" / "r"
    with open(run_path / "events.jsonl", "ab") as events:
        events.write(b'{"schema": 1, "event": "st')  # as of one that dies while it writes
    done = launching.run(tmp_path, "--resume", env=hooked(base))
    assert done.returncode == 0, done.stderr
    assert "attempt 1 has no end: waiting for what may be left of it" in done.stderr
    events = list(map(json.loads, (line for line in (run_path / "events.jsonl").read_text()
                                   .splitlines() if line.endswith("}"))))  # fmt: skip
    assert [e["attempt"] for e in events if e["event"] == "attempt"] == [1, 2]
    steps = {e["step"]: e["loss"] for e in events if e["event"] == "step"}
    assert steps == losses(base / "runs" / "full")
    assert len(left) >= 2
    assert ranks_of(run_path) == []
    assert summarize_run(run_path).attempts == 2


# -- a command of one's own ------------------------------------------------------------------------

# Rank 0 fails, once rank 1 has spoken too: the end of one rank ends the other.
THIRD_TIME = """
import os, sys, time
attempt = int(os.environ["HPCTRAIN_ATTEMPT_NUMBER"])
said = f"said-{attempt}"
if os.environ["RANK"] == "1":
    os.write(1, f"attempt {attempt}\\n".encode())
    open(said, "w").close()
    time.sleep(0 if attempt == 3 else 60)
    sys.exit(0)
while not os.path.exists(said):
    time.sleep(0.01)
os.write(1, f"attempt {attempt}\\n".encode())
sys.exit(0 if attempt == 3 else 7)
"""


def test_a_command_is_run_again_and_knows_which_time_it_is(tmp_path):
    program = (sys.executable, "-c", THIRD_TIME)
    done = run_impatient(tmp_path, "--np", "2", "--max-restarts", "5", "--", *program)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "attempt 1\nattempt 2\nattempt 3\n"
    assert done.log(1) == b"attempt 1\nattempt 2\nattempt 3\n"


def test_restarts_are_used_up_and_the_first_failures_code_stays(tmp_path):
    done = run_impatient(tmp_path, "--np", "1", "--max-restarts", "1", "--", "sh", "-c", "exit 7")
    assert done.returncode == 7
    assert "given up: 1 restart is used up" in done.stderr
    end = done.event("run_finished")
    assert (end["retryable"], end["restarts"], end["attempt"]) == (True, 1, 2)


@pytest.mark.parametrize("code", [2, 127])
def test_usage_errors_are_not_tried_again(tmp_path, code):
    words = ("--np", "1", "--max-restarts", "3", "--", "sh", "-c", f"exit {code}")
    done = run_impatient(tmp_path, *words)
    assert done.returncode == code
    assert len(events_named(done, "attempt")) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait(tmp_path, number, code):
    words = ("--np", "1", "--max-restarts", "3", "--", "sh", "-c", "exit 7")
    process = launching.start(tmp_path, *words)
    wait_for_event(tmp_path / "runs" / "r", "attempt_finished")
    process.send_signal(number)
    done = launching.finish(process, tmp_path)
    assert done.returncode == code, done.stderr
    assert done.event("run_finished")["state"] == "stopped"
    assert len(events_named(done, "attempt")) == 1


def test_a_signal_ends_an_attempt_and_the_loop(tmp_path):
    program = (sys.executable, "-c", launching.WAITING_PROGRAM, "613")
    process = launching.start(tmp_path, "--np", "1", "--max-restarts", "3", "--", *program)
    launching.wait_for_output(tmp_path, [0])
    process.send_signal(signal.SIGTERM)
    done = launching.finish(process, tmp_path)
    assert done.returncode == 143
    assert len(events_named(done, "attempt")) == 1


def test_settings_that_do_nothing_or_cannot_be_are_named(tmp_path):
    idle = launching.run(tmp_path, "--np", "1", "--min-np", "1", "--", "true")
    assert "launch.min_np does nothing without --max-restarts" in idle.stderr
    more = ("--np", "1", "--min-np", "2", "--max-restarts", "1", "--", "true")
    large = launching.run(tmp_path, *more, name="large")
    assert large.returncode == 2
    assert "more ranks than the run begins with, got 2; expected at most 1" in large.stderr
    spares = launching.run(tmp_path, "--np", "1", "--spares", "1", "--", "true", name="spares")
    assert spares.returncode == 2
    assert "no host is left for ranks" in spares.stderr


def ranks_of(run_path):
    """Return the processes whose environment names a run."""
    wanted = f"HPCTRAIN_RUN_PATH={run_path}".encode()
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return found


def wait_for_event(path, name):
    def is_there():
        file = path / "events.jsonl"
        return file.exists() and f'"event":"{name}"' in file.read_text()

    launching.wait_until(is_there, f"the event {name}")
    time.sleep(0.3)  # the signal is to find it between its attempts
