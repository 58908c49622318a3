"""Parts of the rank shim; the whole of it, with a launcher, is tested with the channel."""

import os
import selectors
import signal
import time

import pytest

from hpctrain.launch import descendants, shim_program
from hpctrain.launch.shim import RankShim
from hpctrain.launch.shim_program import Program


@pytest.fixture
def program():
    """Return a function that starts a program; whatever is left of it is ended after the test."""
    started = []

    def start(*argv):
        made = Program(argv, {**os.environ, "HPCTRAIN_GRACE_S": "0.1"}, size=1)
        pipes = made.start()
        started.append((made, pipes))
        return made, {stream: descriptor for descriptor, stream in pipes.items()}

    yield start
    for made, pipes in started:
        descendants.signal_group(made.pid, signal.SIGKILL)
        made._child.wait()
        for descriptor in pipes:
            os.close(descriptor)


def read_line(descriptor):
    os.set_blocking(descriptor, True)
    return os.read(descriptor, 100)


def test_what_a_shell_has_started_is_stopped_and_so_is_the_program(program):
    made, pipes = program("sh", "-c", "sleep 60 & echo $!; wait")
    inside = int(read_line(pipes["stdout"]))
    assert made.describe_life(time.monotonic())["state"] in "RSD"
    os.kill(inside, signal.SIGSTOP)
    until_s = time.monotonic() + 10
    while made.describe_life(time.monotonic())["state"] != "T":
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_one_that_could_not_be_started_can_be_asked_to_end():
    made = Program(("no-such-program",), os.environ, size=1)
    with pytest.raises(FileNotFoundError):
        made.start()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL):
        made.pass_on(number)
    assert made.kill_at_s is not None


@pytest.mark.parametrize("problem", [ProcessLookupError, PermissionError])
def test_what_belongs_to_another_user_does_not_end_the_shim(monkeypatch, problem):
    def refuse(pid, number):
        raise problem

    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(os, "killpg", refuse)
    monkeypatch.setattr(shim_program, "MAX_SWEEPS", 2)
    monkeypatch.setattr(shim_program, "descendants", lambda pid: [1])
    Program(("true",), os.environ, size=1).end_descendants()
    descendants.signal_group(1, signal.SIGTERM)


class CutOff:
    """An uplink that nobody answers."""

    def __init__(self):
        self.unsent_bytes, self.closed = 1, False

    def write_out(self): ...

    def is_cut_off(self):
        return True

    def drop(self):
        self.unsent_bytes = 0

    def close(self):
        self.closed = True


def test_what_cannot_be_sent_to_a_host_that_is_gone_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("hpctrain.launch.shim.FLUSH_TURN_S", 0.01)
    made = object.__new__(RankShim)
    made._uplink, made._program = CutOff(), Program(("true",), os.environ, size=1)
    with selectors.DefaultSelector() as made._selector:
        made._flush()
    assert made._uplink.closed
