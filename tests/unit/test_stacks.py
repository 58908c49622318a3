"""Where a program is that hangs: asked for real, of real processes."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from hpctrain.launch import stacks
from hpctrain.launch.rank_life import process_state
from hpctrain.launch.stacks import STACKS_FD_VARIABLE, collect_stacks

TELLING = """
import time
from hpctrain.launch.stacks import tell_stacks_on_signal
tell_stacks_on_signal()
def wait_for_the_others():
    print("ready", flush=True)
    time.sleep(60)
wait_for_the_others()
"""
SILENT = "import time; print('ready', flush=True); time.sleep(60)"


@pytest.fixture(autouse=True)
def no_py_spy(monkeypatch):
    monkeypatch.setattr(stacks, "_spy", lambda pid: "")


@pytest.fixture
def descriptor():
    made = os.memfd_create("stacks")
    os.set_inheritable(made, True)
    yield made
    os.close(made)


@pytest.fixture
def start(descriptor):
    started = []

    def start(*argv):
        where = f"{descriptor}:{os.fstat(descriptor).st_ino}"
        process = subprocess.Popen(
            argv, env={**os.environ, STACKS_FD_VARIABLE: where}, stdout=subprocess.PIPE,
            close_fds=False, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def python(code):
    return sys.executable, "-c", code


def test_a_program_that_tells_is_asked_and_goes_on(start, descriptor):
    process = start(*python(TELLING))
    for _ in range(2):  # again: what it said before is not said twice
        text = collect_stacks(process.pid, descriptor)
        assert text.count("in wait_for_the_others") == 1
        assert re.match(f"process {process.pid}, state [RS]", text)
        assert process.poll() is None


def test_one_that_does_not_listen_is_not_sent_what_would_end_it(start, descriptor):
    process = start(*python(SILENT))
    assert "the program does not tell them" in collect_stacks(process.pid, descriptor)
    assert process.poll() is None


def test_one_that_means_something_else_by_the_signal_is_not_sent_it(start, descriptor):
    code = ("import signal, time; signal.signal(signal.SIGUSR2, lambda *_: exit(5)); "
            "print('ready', flush=True); time.sleep(60)")  # fmt: skip
    process = start(*python(code))
    assert "the program does not tell them" in collect_stacks(process.pid, descriptor)
    assert process.poll() is None


def test_a_stopped_one_is_said_to_be_stopped(start, descriptor):
    process = start(*python(TELLING))
    process.send_signal(signal.SIGSTOP)
    deadline_s = time.monotonic() + 10
    while process_state(process.pid) != "T" and time.monotonic() < deadline_s:
        time.sleep(0.01)
    text = collect_stacks(process.pid, descriptor)
    assert f"process {process.pid}, state T" in text
    assert "the program is stopped" in text


def test_below_a_shell_its_python_is_asked(start, descriptor):
    process = start("sh", "-c", '"$0" -c "$1"; exit 3', sys.executable, TELLING)
    text = collect_stacks(process.pid, descriptor)
    assert text.splitlines()[0].startswith(f"process {process.pid}, ")
    assert "in wait_for_the_others" in text
    subprocess.run(["pkill", "-P", str(process.pid)], check=True)


def test_py_spys_answer_counts_first(start, descriptor, monkeypatch):
    process = start(*python(TELLING))
    monkeypatch.setattr(stacks, "_spy", lambda pid: f"py-spy of {pid}\n")
    assert f"py-spy of {process.pid}" in collect_stacks(process.pid, descriptor)


def test_one_that_has_ended_is_said_to_be_gone(descriptor):
    process = subprocess.Popen(["true"])
    process.wait()
    text = collect_stacks(process.pid, descriptor)
    assert text.startswith(f"process {process.pid}, state gone: ")
    assert "no Python stacks" in text


def test_a_flood_is_cut(start, descriptor, monkeypatch):
    process = start(*python(SILENT))
    monkeypatch.setattr(stacks, "_spy", lambda pid: "x" * 10**6)
    assert len(collect_stacks(process.pid, descriptor)) == stacks.MOST_CHARACTERS


@pytest.mark.parametrize("value", ["", "x", "7:1", "9999:1"])
def test_outside_a_launch_nothing_is_registered(value):
    code = (
        "import faulthandler, signal\n"
        "from hpctrain.launch.stacks import tell_stacks_on_signal\n"
        "tell_stacks_on_signal()\n"
        "print(faulthandler.unregister(signal.SIGUSR2))"
    )
    done = subprocess.run(
        python(code), env={**os.environ, STACKS_FD_VARIABLE: value}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "False\n"
