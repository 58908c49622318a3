"""Events off the critical path: a launcher that does not read never stops a step."""

import json
import os
import subprocess
import sys
import time

import pytest

from hpctrain import event_queue
from hpctrain.event_queue import EventQueue
from hpctrain.events import EVENTS_FD_VARIABLE

PADDING = "x" * 1000


@pytest.fixture
def pipe(monkeypatch):
    reader, writer = os.pipe()
    monkeypatch.setenv(EVENTS_FD_VARIABLE, str(writer))
    yield reader
    os.close(reader)
    os.close(writer)


def read_all(reader, until):
    """Read events up to the one called `until`."""
    text = b""
    while b'"event":"%s"' % until.encode() not in text or not text.endswith(b"\n"):
        text += os.read(reader, 1 << 16)
    return [json.loads(line) for line in text.splitlines()]


def test_events_come_in_order_and_with_the_time_of_the_call(pipe):
    queue = EventQueue()
    before_s = time.time()
    for step in range(100):
        queue.emit("step", step=step)
    assert queue.flush()
    records = [json.loads(line) for line in os.read(pipe, 1 << 16).splitlines()]
    assert [record["step"] for record in records] == list(range(100))
    assert before_s - 1e-3 <= records[0]["time_s"] <= records[-1]["time_s"] <= time.time() + 1e-3


def test_a_reader_that_is_blocked_blocks_no_step_and_losses_are_told(pipe):
    queue = EventQueue(max_events=50)
    started_s = time.perf_counter()
    for step in range(1000):
        queue.emit("step", step=step, padding=PADDING)
    assert time.perf_counter() - started_s < 5  # it would wait for ever
    assert not queue.flush(timeout_s=0.05)
    assert queue.dropped > 500
    queue.emit("last")
    records = read_all(pipe, "last")
    told = [record["count"] for record in records if record["event"] == "events_dropped"]
    assert sum(told) == queue.dropped
    steps = [record["step"] for record in records if record["event"] == "step"]
    assert steps == sorted(steps)
    assert len(steps) == 1000 - queue.dropped
    assert steps[-1] == 999  # the newest survive


def test_nothing_happens_without_a_launcher(monkeypatch):
    monkeypatch.delenv(EVENTS_FD_VARIABLE, raising=False)
    queue = EventQueue()
    queue.emit("step", value=object())  # not even looked at
    assert queue.flush(0)
    queue.close()


def test_a_value_that_is_no_json_is_told_as_what_it_was_when_it_was_given(pipe):
    values = {"loss": {1}}
    queue = EventQueue()
    queue.emit("step", **values)
    values["loss"].add(2)
    assert queue.flush()
    assert json.loads(os.read(pipe, 65536))["loss"] == "{1}"


def test_a_shim_that_is_gone_ends_it_quietly(monkeypatch):
    reader, writer = os.pipe()
    monkeypatch.setenv(EVENTS_FD_VARIABLE, str(writer))
    os.close(reader)
    queue = EventQueue()
    queue.emit("step", step=1)
    assert queue.flush()
    queue.emit("step", step=2)
    assert EVENTS_FD_VARIABLE not in os.environ
    os.close(writer)


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise RuntimeError('disk on fire')"])
def test_events_are_flushed_however_python_ends(tmp_path, end):
    code = (
        "import sys; from hpctrain.event_queue import EventQueue; queue = EventQueue()\n"
        "for step in range(500): queue.emit('step', step=step)\n"
    )
    with (tmp_path / "events").open("wb") as file:
        subprocess.run(
            [sys.executable, "-c", code + end], pass_fds=[file.fileno()], check=False,
            env={**os.environ, EVENTS_FD_VARIABLE: str(file.fileno())}, capture_output=True,
        )  # fmt: skip
    lines = (tmp_path / "events").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(500))


def test_at_the_end_a_blocked_launcher_is_waited_for_no_longer_than_a_moment(
    pipe, monkeypatch, capsys
):
    monkeypatch.setattr(event_queue, "CLOSE_TIMEOUT_S", 0.1)
    queue = EventQueue()
    monkeypatch.setattr(queue, "flush", lambda: EventQueue.flush(queue, 0.1))
    for step in range(200):
        queue.emit("step", step=step, padding=PADDING)
    queue.close()
    told = capsys.readouterr().err
    assert told.startswith("warning: events: ")
    assert "did not reach the launcher" in told
    monkeypatch.undo()
    os.set_blocking(pipe, False)
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s and not queue.flush(0.01):  # let the thread go in peace
        try:
            os.read(pipe, 1 << 16)
        except BlockingIOError:
            time.sleep(0.001)
