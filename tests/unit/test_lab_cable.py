"""A lab's cable as a process: what is on the line takes its time, and a pause lends nothing."""

import pytest

from hpctrain.clusters.lab import cable
from hpctrain.clusters.lab.cable import MOST_BYTES_IN_FLIGHT, VNET_HEADER_BYTES, Way

HEADER = b"\0" * VNET_HEADER_BYTES
FRAME = HEADER + b"x" * 1000  # 8000 bits: 1 ms at 8 Mbit/s


@pytest.fixture
def out(monkeypatch):
    arrived = []
    monkeypatch.setattr(cable, "_put", lambda end, frame: arrived.append((end, frame)))
    return arrived


def arrivals(way, out, until_s, step_s=0.0001):
    """Deliver in small steps; return when each frame came out (s)."""
    times = []
    for number in range(int(until_s / step_s) + 1):
        now_s = number * step_s
        way.deliver(now_s)
        times += [round(now_s, 4)] * (len(out) - len(times))
    return times


def test_frames_leave_one_after_the_other_and_then_take_the_latency(out):
    way = Way(7, 0.002, 8e6)
    for _ in range(3):
        way.take(FRAME, 0.0)
    assert arrivals(way, out, 0.01) == pytest.approx([0.003, 0.004, 0.005])
    assert [end for end, _ in out] == [7, 7, 7]


def test_a_pause_lends_nothing(out):
    way = Way(7, 0.0, 8e6)
    way.take(FRAME, 0.0)
    for _ in range(2):
        way.take(FRAME, 1.0)  # after a second in which the line was free
    assert way.next_s() == pytest.approx(0.001)
    way.deliver(1.0)
    assert len(out) == 1
    assert way.next_s() == pytest.approx(1.001)
    way.deliver(1.0015)
    assert len(out) == 2
    assert way.next_s() == pytest.approx(1.002)


def test_without_a_rate_only_the_latency_counts(out):
    way = Way(7, 0.002, 0.0)
    for _ in range(3):
        way.take(FRAME, 0.0)
    assert arrivals(way, out, 0.005) == pytest.approx([0.002] * 3)


def test_without_either_a_frame_goes_straight_through(out):
    way = Way(7, 0.0, 0.0)
    way.take(FRAME, 0.0)
    assert out == [(7, FRAME)]
    assert way.next_s() == float("inf")


def test_what_no_buffer_holds_is_dropped_and_the_line_goes_on(out):
    way = Way(7, 1.0, 8e9)
    big = HEADER + b"x" * 60_000
    count = MOST_BYTES_IN_FLIGHT // len(big) + 5
    for _ in range(count):
        way.take(big, 0.0)
    way.deliver(1e9)
    assert len(out) == MOST_BYTES_IN_FLIGHT // len(big)
    way.take(big, 2e9)
    way.deliver(3e9)
    assert len(out) == MOST_BYTES_IN_FLIGHT // len(big) + 1
