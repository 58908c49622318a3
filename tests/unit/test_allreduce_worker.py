"""The rank side of the all-reduce measurement, on one rank: a wrong element is never missed."""

import pytest
import tiers

tiers.require("torch")

import itertools  # noqa: E402

import numpy as np  # noqa: E402

from hpctrain.bench.allreduce import worker, worker_facts  # noqa: E402
from hpctrain.bench.allreduce.worker_backends import Backend, message_stride  # noqa: E402
from hpctrain.bench.allreduce.worker_control import Control  # noqa: E402
from hpctrain.bench.allreduce.worker_meter import Meter, Series  # noqa: E402
from hpctrain.bench.allreduce.worker_pattern import PERIOD, Pattern  # noqa: E402
from hpctrain.errors import BenchError  # noqa: E402

NUMEL = 3 * PERIOD * 4096 + 17  # more than one block, and a rest


class Alone(Backend):
    """With one rank the sum is there already."""

    name = "alone"

    def reduce(self, message):
        pass


class OneWrong(Alone):
    """Damages one element of the last message of each batch."""

    def run(self):
        self._messages[-1][-1] += 1


@pytest.fixture
def events(monkeypatch):
    found = []
    monkeypatch.setattr(worker, "emit", lambda event, **fields: found.append((event, fields)))
    monkeypatch.setattr(worker, "report_step", lambda step: found.append(("step", step)))
    return found


def summed(numel, size, seed):
    total, own = np.zeros(numel, np.float32), np.empty(numel, np.float32)
    for rank in range(size):
        Pattern(rank, size).fill(own, seed)
        total += own
    return total


@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_the_sum_of_all_ranks_is_what_is_expected(size):
    total = summed(1000, size, seed=5)
    assert Pattern(0, size).count_wrong(total, seed=5) == 0
    assert Pattern(size - 1, size).count_wrong(total, seed=5) == 0


@pytest.mark.parametrize("place", [0, 250, 251, 4096 * PERIOD - 1, 4096 * PERIOD, NUMEL - 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_one_wrong_element_is_found_wherever_it_is(place, value):
    total = summed(NUMEL, 2, seed=3)
    total[place] = value
    assert Pattern(0, 2).count_wrong(total, seed=3) == 1


def test_what_goes_wrong_in_an_all_reduce_is_found():
    size, numel, seed = 3, 4096, 7
    total, pattern = summed(numel, size, seed), Pattern(1, size)
    own = np.empty(numel, np.float32)
    pattern.fill(own, seed)
    assert pattern.count_wrong(own, seed) == numel  # nothing was summed
    assert pattern.count_wrong(total - own, seed) >= numel * 250 // 251  # one rank stayed away
    assert pattern.count_wrong(summed(numel, size, seed - 1), seed) > 0  # an old result
    blocks = total.reshape(4, 1024)[[1, 0, 2, 3]].ravel()  # a block that lies elsewhere
    assert pattern.count_wrong(blocks, seed) > 2000


@pytest.mark.parametrize("size", [1000, 20_000])
def test_sums_stay_exact_with_many_ranks(size):
    """In fp32, rank after rank in either direction, and by halves as a tree sums."""
    seed, numel = 9, 300
    ranks = np.arange(size)[:, None]
    given = ((np.arange(numel) + seed + 31 * ranks) % PERIOD).astype(np.float32)
    own = np.empty(numel, np.float32)
    Pattern(size - 1, size).fill(own, seed)
    assert (own == given[-1]).all()
    tree = given
    while len(tree) > 1:
        half = len(tree) // 2
        tree = np.concatenate([tree[:half] + tree[half : 2 * half], tree[2 * half :]])
    sums = (
        np.cumsum(given, axis=0, dtype=np.float32)[-1],
        np.cumsum(given[::-1], axis=0, dtype=np.float32)[-1],
        tree[0],
    )
    for total in sums:
        assert Pattern(0, size).count_wrong(total, seed) == 0
        off_by_one = total.copy()
        off_by_one[17] += 1  # as large as the sums are, one is not lost in them
        assert Pattern(0, size).count_wrong(off_by_one, seed) == 1


def test_every_element_of_every_timed_message_is_checked():
    backend = Alone(np.zeros(1 << 16, np.float32))
    series = Series(backend, numel=5, count=40)
    assert Meter(Control()).time_batch(series) > 0
    assert (series.checked, series.wrong) == (200, 0)
    starts = [message.__array_interface__["data"][0] for message in backend.host]
    assert {b - a for a, b in itertools.pairwise(starts)} == {64}


def test_a_wrong_element_is_counted():
    series = Series(OneWrong(np.zeros(1 << 16, np.float32)), numel=100, count=3)
    meter = Meter(Control())
    for repeat in range(1, 4):
        meter.time_batch(series)
        assert series.wrong == repeat


def test_a_wrong_sum_reaches_the_report(events):
    backends = [Alone(pool := np.zeros(1 << 16, np.float32)), OneWrong(pool)]
    worker.run_worker(Control(), backends, [4, 64], 5, 10.0, pool.nbytes)
    points = [fields for event, fields in events if event == "allreduce_point"]
    assert [point["bytes"] for point in points] == [4, 4, 64, 64]
    assert [point["wrong"] > 0 for point in points] == [False, True, False, True]
    assert all(len(point["repeats_s"]) == 5 for point in points)
    assert [fields for event, fields in events if event == "step"] == [2, 4]


def test_sizes_beyond_the_budget_are_named(events):
    pool = np.zeros(1 << 16, np.float32)
    worker.run_worker(Control(), [Alone(pool)], [4, 64], 5, 0.0, pool.nbytes)
    assert [event for event, _ in events] == ["allreduce_skipped"] * 2
    assert "0 s left of the budget" in events[0][1]["reason"]
    with pytest.raises(BenchError, match="wrong sums at 4 bytes"):
        worker.run_worker(Control(), [OneWrong(pool)], [4], 5, 0.0, pool.nbytes)


def test_repeats_end_with_the_share_but_not_before_three():
    series = Series(Alone(np.zeros(1 << 16, np.float32)), numel=16)
    assert Meter(Control()).measure([series], 64, 50, share_s=0.0, left_s=100.0) == 0.0
    assert len(series.times_s) == 3


def test_messages_that_do_not_fit_are_left_out(monkeypatch, events):
    monkeypatch.setattr(worker_facts, "available_bytes", lambda: 10_000_000)
    control = Control()
    sizes = worker.agree_on_sizes(control, ["torch"], [4, 1 << 20, 1 << 22], 2, None)
    assert sizes == [4, 1 << 20]
    assert events[0][1]["bytes"] == 1 << 22
    assert "2 ranks need 25 MB, got 10 MB free" in events[0][1]["reason"]


def test_memory_is_known_here():
    assert 0 < worker_facts.available_bytes() < 1 << 50


def test_an_absent_backend_is_named_with_its_host(monkeypatch, events):
    class TwoHosts(Control):
        size = 2

        def gather(self, value):
            return [value, ("other", "cannot be imported: no libmpi" if "mpi" in absent else "")]

    absent = {"mpi4py"}
    monkeypatch.setattr(worker, "why_absent", lambda name: "")
    assert worker.agree_on_backends(TwoHosts(), ["mpi4py"]) == ["mpi4py"]
    absent.add("mpi")
    assert worker.agree_on_backends(TwoHosts(), ["mpi4py"]) == []
    assert events[-1][1]["reason"] == "on other: cannot be imported: no libmpi"


def test_messages_lie_on_lines_of_their_own():
    assert [message_stride(numel) for numel in (1, 16, 17, 1 << 20)] == [16, 16, 32, 1 << 20]
