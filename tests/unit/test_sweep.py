"""The sweep: real processes that carry an attempt's name are ended, and no others."""

import os
import select
import signal
import subprocess
import threading
import uuid
from contextlib import suppress

import pytest

from hpctrain.executor import Completed, RecordingExecutor, SshExecutor
from hpctrain.launch.sweep import diagnose_hosts, find_healthy_hosts, run_sweep


@pytest.fixture
def start():
    """Start programs with variables; whatever is left of them is ended after the test."""
    started = []

    def start(*argv, **env):
        made = subprocess.Popen(
            argv, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        started.append(made)
        return made

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.fixture
def attempt():
    return f"lr-3e.4+x.{uuid.uuid4().hex[:12]}"


def test_what_carries_the_attempts_name_is_ended_and_nothing_else(start, attempt):
    left = start("sleep", "1000", HPCTRAIN_ATTEMPT=attempt)
    others = [
        start("sleep", "1000", HPCTRAIN_ATTEMPT=f"{attempt}0"),
        start("sleep", "1000", HPCTRAIN_ATTEMPT=attempt[:-1]),
        start("sleep", "1000", HPCTRAIN_ATTEMPT=attempt.replace(".", "x")),
        start("sleep", "1000", OTHER=attempt, X_HPCTRAIN_ATTEMPT=attempt),
        start("tail", "-f", "/dev/null", f"--pid={os.getpid()}", HPCTRAIN_ATTEMPT=""),
        start("sh", "-c", "sleep 1000", f"HPCTRAIN_ATTEMPT={attempt}"),
    ]
    assert run_sweep(attempt, [], []).lines == [
        f"this machine: ended 1 left behind ({left.pid} sleep 1000 )"
    ]
    assert left.wait(timeout=10) == -9
    assert [process.poll() for process in others] == [None] * len(others)


def test_what_they_started_is_ended_too(start, attempt):
    script = "setsid sleep 1000 & echo $!; trap '' TERM; wait"
    parent = start("sh", "-c", script, HPCTRAIN_ATTEMPT=attempt)
    helper = os.pidfd_open(int(parent.stdout.readline()))
    (line,) = run_sweep(attempt, [], []).lines
    assert line.startswith("this machine: ended 2 left behind (")
    assert select.select([helper], [], [], 10)[0]
    os.close(helper)
    assert parent.wait(timeout=10) == -9


def test_nothing_left_is_nothing_to_say(attempt):
    assert run_sweep(attempt, [], []).lines == []


def test_many_are_counted_and_three_shown():
    recorder = RecordingExecutor({"^sh ": (0, "1 a\n2 b\n3 c\n4 d\n", "")})
    assert run_sweep("r.1", [], [], recorder).lines == [
        "this machine: ended 4 left behind (1 a; 2 b; 3 c)"
    ]


def test_every_host_is_swept_and_those_that_could_not_be_are_named():
    recorder = RecordingExecutor({
        "-- n1 ": (0, "12 python train.py\n", ""),
        "-- n2 ": (255, "", "ssh: connect to host n2 port 22: No route to host\n"),
        "-- n3 ": (0, "", ""),
        "^sh ": (0, "", ""),
    })  # fmt: skip
    swept = run_sweep("r.1", ["n1", "n2", "n3"], ["-F", "cfg"], recorder)
    assert swept.lines == [
        "n1: ended 1 left behind (12 python train.py)",
        "n2: could not be swept: ssh: connect to host n2 port 22: No route to host",
    ]
    assert swept.missed == ("n2",)
    remote = [command.argv for command in recorder.commands if command.argv[0] == "ssh"]
    assert all(argv[5:7] == ("-F", "cfg") for argv in remote)
    assert {argv[-1] for argv in remote} == {"sh -s -- HPCTRAIN_ATTEMPT=r.1"}


def test_why_a_host_could_not_start_is_said_for_each(monkeypatch):
    answers = {
        "n1": (0, "", ""),
        "n2": (255, "", "Permission denied (publickey).\n"),
        "n3": (127, "", "sh: 1: /venv/bin/python: not found"),
        "n4": (1, "", "ModuleNotFoundError: No module named 'hpctrain'\n"),
        "n5": (124, "", "no answer within 15 s"),
    }
    monkeypatch.setattr(
        SshExecutor, "run",
        lambda self, command, **_: Completed(command, *answers[self.destination]),
    )  # fmt: skip
    told = diagnose_hosts(list(answers), ["-F", "cfg"], "/venv/bin/python")
    assert [line.partition(":")[0] for line in told] == ["n2", "n3", "n4", "n5"]
    assert told[0].endswith("Permission denied (publickey).. Try it by hand: ssh -F cfg n2")
    assert "no /venv/bin/python there" in told[1]
    assert "No module named 'hpctrain'" in told[2]
    assert "ssh fails: no answer within 15 s" in told[3]


def test_what_ends_by_itself_in_time_is_not_killed(start, attempt):
    quick = start("sleep", "1", HPCTRAIN_ATTEMPT=attempt)
    reaper = threading.Thread(target=quick.wait)  # else it stays in /proc, though as a zombie
    reaper.start()
    assert run_sweep(attempt, [], [], patience_s=30).lines == []
    reaper.join()
    assert quick.returncode == 0


def test_patience_has_an_end(start, attempt):
    left = start("sleep", "1000", HPCTRAIN_ATTEMPT=attempt)
    (line,) = run_sweep(attempt, [], [], patience_s=1).lines
    assert line.startswith("this machine: ended 1 left behind (")
    assert left.wait(timeout=10) == -9


def test_healthy_hosts_are_told_from_others(monkeypatch):
    answers = {"n1": (0, "", ""), "n2": (255, "", "No route to host\n")}
    monkeypatch.setattr(
        SshExecutor, "run",
        lambda self, command, **_: Completed(command, *answers[self.destination]),
    )  # fmt: skip
    found = find_healthy_hosts(["n1", "n2"], ["-F", "cfg"], "python")
    assert found["n1"] == ""
    assert found["n2"].startswith("ssh fails: No route to host.")
    assert find_healthy_hosts([], [], "python") == {}


def test_python_on_other_hosts_finds_hpctrain_as_ranks_do(monkeypatch):
    asked = []

    def run(self, command, **_):
        asked.append(dict(command.env))
        return Completed(command, 0, "", "")

    monkeypatch.setattr(SshExecutor, "run", run)
    monkeypatch.setenv("PYTHONPATH", "/srv/hpctrain")
    find_healthy_hosts(["n1"], [], "python")
    monkeypatch.delenv("PYTHONPATH")
    find_healthy_hosts(["n1"], [], "python")
    assert asked == [{"PYTHONPATH": "/srv/hpctrain"}, {}]
