"""A node's share of the cores: what is stopped, what never is, and that nothing stays stopped."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpctrain.clusters.lab import cpu, duty_cycle
from hpctrain.clusters.lab.find import Process
from hpctrain.clusters.lab.names import Space

SPACE = Space("none", "n1")


@pytest.fixture
def process(monkeypatch):
    """A process of this machine whose PID a search has just found on a node."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as started:
        found = [Process(started.pid, SPACE, is_init=False, is_within=True)]
        monkeypatch.setattr(cpu, "find_processes", lambda lab: found)
        yield started
        started.kill()


def is_stopped(process):
    end_s = time.monotonic() + 0.05  # a signal may take a moment
    while time.monotonic() < end_s:
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


def test_a_pid_that_means_another_process_by_now_is_never_stopped(process):
    stopped = []
    cpu.stop_node("none", "n1", stopped)
    assert stopped == []
    assert not is_stopped(process)


def test_what_was_stopped_is_continued_wherever_it_is_by_then(process, monkeypatch):
    monkeypatch.setattr(cpu, "is_program_of", lambda pid, space: True)
    stopped = []
    cpu.stop_node("none", "n1", stopped)
    assert is_stopped(process)
    monkeypatch.setattr(cpu, "find_processes", lambda lab: [])
    cpu.continue_stopped(stopped)
    assert not is_stopped(process)


def test_a_stand_in_that_is_ended_leaves_nothing_stopped(process, monkeypatch):
    monkeypatch.setattr(cpu, "is_program_of", lambda pid, space: True)
    monkeypatch.setattr(duty_cycle, "find_inits", lambda lab: {"n1": 1})
    monkeypatch.setattr(sys, "argv", ["", "none", "n1", "0.5"])
    before = signal.getsignal(signal.SIGTERM)

    def is_ended(seconds):
        assert is_stopped(process)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(duty_cycle.time, "sleep", is_ended)
    try:
        with pytest.raises(SystemExit):
            duty_cycle.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    monkeypatch.undo()
    assert not is_stopped(process)
