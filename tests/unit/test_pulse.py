"""What a rank says of itself through a page of memory, and what its shim reads there."""

import mmap
import os
import subprocess
import sys

import pytest

import hpctrain.pulse as pulse_module
from hpctrain import events
from hpctrain.pulse import PHASES, PULSE_FD_VARIABLE, UNTIMED, WAITING, PulsePage, PulseWriter


@pytest.fixture
def page(monkeypatch):
    """A shim's page, which this process is told of as a rank's program is."""
    made = PulsePage()
    monkeypatch.setenv(PULSE_FD_VARIABLE, made.variable)
    yield made
    os.close(made.descriptor)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now_s = [100.0]
    monkeypatch.setattr(pulse_module.time, "monotonic", lambda: now_s[0])

    def wait(seconds):
        now_s[0] += seconds

    return wait


def test_a_program_that_says_nothing_has_no_pulse(page):
    assert page.read() is None
    PulseWriter()
    assert page.read() is None


def test_phases_and_steps_arrive(page, clock):
    writer = PulseWriter()
    for phase in PHASES:
        writer.enter(phase)
        assert page.read().phase == phase
    writer.enter("data")
    clock(2.0)
    writer.step(41)
    assert page.read() == (len(PHASES) + 2, 41, "data", 102.0, 0.0, 1)


def test_the_longest_standstill_is_one_between_steps(page, clock):
    writer = PulseWriter()
    writer.enter("start")
    clock(50.0)  # imports, a checkpoint that is read
    writer.enter("data")
    clock(30.0)  # compiles in the first step
    writer.step(1)
    clock(20.0)  # and what else is done for the first time
    writer.step(2)
    assert page.read().longest_s == 0.0
    clock(3.0)
    writer.enter("checkpoint")
    clock(40.0)  # the disk is slow: no measure of a step
    writer.enter("data")
    clock(2.0)
    writer.step(3)
    assert page.read().longest_s == 3.0
    assert page.read().steps_done == 3


def test_several_writers_go_on_where_the_others_are(page, clock):
    PulseWriter().enter("start")
    second = PulseWriter()
    second.step(1)
    PulseWriter().step(2)
    second.enter("exchange")
    read = page.read()
    assert (read.changes, read.step, read.phase, read.steps_done) == (4, 2, "exchange", 2)


@pytest.mark.parametrize("step", [None, "x", float("nan"), 1 << 70, object()])
def test_what_is_no_step_ends_no_training(page, step):
    writer = PulseWriter()
    writer.step(7)
    writer.step(step)
    assert page.read().step == 7


def test_a_float_or_a_scalar_is_a_step_too(page):
    import numpy as np

    writer = PulseWriter()
    for step in (3.0, np.int64(4), np.float32(5.0), True):
        writer.step(step)
        assert page.read().step == int(step)


def test_a_reported_step_is_a_pulse_without_a_phase(page, monkeypatch):
    events._pulse.cache_clear()
    try:
        events.report_step(12, loss=1.0)
    finally:
        events._pulse.cache_clear()
    assert (page.read().step, page.read().phase, page.read().steps_done) == (12, "", 1)


@pytest.mark.parametrize("value", ["", "x", "9999:1", ":", "0:1", "-1:5"])
def test_without_a_page_nothing_happens(monkeypatch, value):
    monkeypatch.setenv(PULSE_FD_VARIABLE, value)
    writer = PulseWriter()
    writer.enter("start")
    writer.step(1)
    assert writer._page is None


def test_a_descriptor_that_another_file_has_by_now_is_left_alone(page, tmp_path, monkeypatch):
    _, _, inode = page.variable.partition(":")
    with open(tmp_path / "mine", "w+b") as mine:
        mine.write(b"\0" * mmap.PAGESIZE)
        mine.flush()
        monkeypatch.setenv(PULSE_FD_VARIABLE, f"{mine.fileno()}:{inode}")
        PulseWriter().step(1)
        mine.seek(0)
        assert mine.read() == b"\0" * mmap.PAGESIZE


def test_it_is_inherited_by_the_program_and_its_children(page):
    code = (
        "import os, hpctrain\n"
        "hpctrain.report_step(1)\n"
        "os.fork() or (hpctrain.report_step(2), os._exit(0))\n"
        "os.wait()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, close_fds=False)
    assert (page.read().step, page.read().steps_done) == (2, 2)


def test_an_unknown_phase_is_our_own_mistake(page):
    with pytest.raises(KeyError):
        PulseWriter().enter("lunch")
    assert set(PHASES) > WAITING | UNTIMED
    assert not WAITING & UNTIMED


def test_whoever_reads_while_it_is_written_never_sees_a_half(page):
    """A half would be a standstill since the machine was started, and end a run."""
    code = (
        "from hpctrain.pulse import PulseWriter\n"
        "writer = PulseWriter()\n"
        "for step in range(60_000): writer.step(step)"
    )
    program = subprocess.Popen([sys.executable, "-c", code], close_fds=False)
    seen = []
    while program.poll() is None:
        seen.append(page.read())
    started = [read for read in seen if read is not None]
    assert len(started) > 100
    assert started == seen[seen.index(started[0]) :]
    assert all(read.changed_at_s > 0 and read.step == read.changes - 1 for read in started)
