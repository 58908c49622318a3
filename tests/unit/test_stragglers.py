"""Who the others wait for, from the events that ranks send while a run runs."""

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.launch.stragglers import (
    LEAST_S,
    WINDOW_STEPS,
    WINDOWS,
    StragglerWatch,
    factors_to_others,
)

STEP_S = 0.1
USUAL = {"data": 0.01, "forward": 0.3, "backward": 0.6, "optimizer": 0.05}


class Run:
    """Ranks that report steps; steps take all of them equally long, as in a real run."""

    def __init__(self, size, per_host=2, every=1):
        self.watch, self.size, self.per_host, self.every = (
            StragglerWatch(size),
            size,
            per_host,
            every,
        )
        self.step = 0
        self.lost = lambda rank, step: False

    def host(self, rank):
        return f"n{rank // self.per_host}"

    def run(self, windows, slow=None, exchange_s=0.05, waits=None):
        """Run some windows; return what was said.

        Args:
            slow: rank → factors by part.
            waits: rank → seconds it waits for the exchange on top, for no reason of its own.
        """
        said = []
        for _ in range(windows * WINDOW_STEPS // self.every):
            self.step += self.every
            parts = {
                rank: {p: s * ((slow or {}).get(rank, {}).get(p, 1.0)) for p, s in USUAL.items()}
                for rank in range(self.size)
            }
            longest_s = max(sum(own.values()) for own in parts.values())
            for rank, own in parts.items():
                wait_s = longest_s - sum(own.values()) + exchange_s + (waits or {}).get(rank, 0.0)
                record = {"step": self.step, "exposed_comm_s": wait_s,
                          **{f"{part}_s": s for part, s in own.items()}}  # fmt: skip
                if not self.lost(rank, self.step):
                    said += self.watch.note(rank, self.host(rank), record)
        return said


def slow_compute(factor):
    return {"forward": factor, "backward": factor}


def test_equal_ranks_are_not_slow():
    assert Run(4).run(20) == []


@pytest.mark.parametrize("every", [1, 5, 20, 100])
def test_a_rank_that_computes_slower_is_named_once(every):
    run = Run(4, every=every)
    run.run(5)
    (found,) = run.run(25, {2: slow_compute(1.6)})
    assert (found.kind, found.ranks, found.host, found.cause) == (
        "straggler",
        (2,),
        "n1",
        "compute",
    )
    assert found.factor == pytest.approx(1.6, rel=0.05)
    assert found.text.startswith("rank 2 on n1: 1.6 times as long")
    assert "clocks" in found.text


def test_not_before_it_was_slow_for_long():
    run = Run(4)
    run.run(5)
    assert run.run(WINDOWS - 1, {2: slow_compute(1.6)}) == []
    assert len(run.run(1, {2: slow_compute(1.6)})) == 1


@pytest.mark.parametrize("factor", [1.1, 1.25])
def test_a_little_slower_is_not_named(factor):
    assert Run(4).run(20, {2: slow_compute(factor)}) == []


def test_slow_now_and_then_is_chance():
    run = Run(4)
    for _ in range(6):
        assert run.run(WINDOWS - 1, {1: slow_compute(2.0)}) == []
        assert run.run(1) == []


def test_two_ranks_know_each_other():
    run = Run(2)
    run.run(2)
    (found,) = run.run(5, {0: slow_compute(2.0)})
    assert found.ranks == (0,)


def test_who_waits_for_data_is_told_so():
    run = Run(4)
    run.run(2)
    (found,) = run.run(5, {3: {"data": 100.0}})
    assert found.cause == "data"
    assert "its storage" in found.text


def test_a_host_all_of_whose_ranks_are_slow_is_named_as_one():
    run = Run(6, per_host=2)
    run.run(2)
    (found,) = run.run(6, {2: slow_compute(1.5), 3: slow_compute(1.7)})
    assert (found.kind, found.ranks, found.host) == ("straggler host", (2, 3), "n1")
    assert found.text.startswith("host n1, all of its 2 ranks: 1.6 times as long")


def test_one_slow_host_of_two_is_the_slow_one():
    run = Run(8, per_host=4)
    run.run(2)
    (found,) = run.run(6, {rank: slow_compute(2.0) for rank in range(4, 8)})
    assert (found.kind, found.host, found.cause) == ("straggler host", "n1", "compute")


def test_it_recovers_and_may_be_named_again():
    run = Run(4)
    slow = {1: slow_compute(2.0)}
    run.run(2)
    assert [f.kind for f in run.run(10, slow)] == ["straggler"]
    assert [f.kind for f in run.run(WINDOWS - 1)] == []
    assert [(f.kind, f.ranks) for f in run.run(1)] == [("recovered", (1,))]
    assert run.run(5) == []
    assert [f.kind for f in run.run(10, slow)] == ["straggler"]


def test_an_exchange_that_gets_slower_for_all_is_a_link_of_nobody():
    run = Run(4)
    assert run.run(6) == []
    (found,) = run.run(6, exchange_s=0.4)
    assert (found.kind, found.ranks, found.cause) == ("slow exchange", (), "link")
    assert "8 times as long as at the beginning" in found.text
    assert [f.kind for f in run.run(6)] == ["recovered"]


def test_an_exchange_of_next_to_nothing_may_vary():
    run = Run(4)
    run.run(6, exchange_s=0.001)
    assert run.run(6, exchange_s=0.05) == []


def test_a_host_that_waits_longer_though_it_works_as_long_has_a_link():
    run = Run(6, per_host=2)
    run.run(6)
    (found,) = run.run(6, waits={2: 0.3, 3: 0.3})
    assert (found.kind, found.ranks, found.host, found.cause) == (
        "straggler host", (2, 3), "n1", "link",
    )  # fmt: skip


def test_one_rank_of_a_host_that_waits_longer_is_no_link():
    run = Run(6, per_host=2)
    run.run(6)
    assert run.run(6, waits={2: 0.3}) == []


def test_who_waits_for_a_slow_one_is_not_taken_for_a_slow_link():
    run = Run(6, per_host=2)
    run.run(3)
    found = run.run(10, {5: slow_compute(3.0)})
    assert [(f.kind, f.ranks) for f in found] == [("straggler", (5,))]


def test_the_first_window_is_warm_up():
    run = Run(4)
    assert run.run(WINDOWS, {2: slow_compute(5.0)}) == []


def test_short_steps_need_more_windows():
    watch = StragglerWatch(2)
    said = []
    for step in range(1, 2000):
        for rank in (0, 1):
            own_s = 0.001 if rank else 0.002
            record = dict.fromkeys(("data_s", "backward_s", "optimizer_s"), 0.0)
            record |= {"step": step, "forward_s": own_s, "exposed_comm_s": 0.002 - own_s}
            said += [(step, found) for found in watch.note(rank, "n0", record)]
        if step == int(LEAST_S / 0.002 * 0.7):
            assert not said
    assert not said  # 2000 steps of 2 ms are 4 s
    for step in range(2000, 3000):
        for rank in (0, 1):
            own_s = 0.001 if rank else 0.002
            record = dict.fromkeys(("data_s", "backward_s", "optimizer_s"), 0.0)
            record |= {"step": step, "forward_s": own_s, "exposed_comm_s": 0.002 - own_s}
            said += [(step, found) for found in watch.note(rank, "n0", record)]
    assert [found.ranks for _, found in said] == [(0,)]


def test_a_rank_alone_is_compared_with_nobody():
    assert Run(1).run(10) == []


def test_lost_events_are_survived():
    run = Run(4)
    run.run(2)
    run.lost = lambda rank, step: rank == 3 and step % 37 < 12
    assert {f.ranks for f in run.run(40, {2: slow_compute(2.0)})} == {(2,)}
    assert len(run.watch._windows) < 8


def test_a_rank_that_reports_no_more_holds_nothing():
    run = Run(4)
    run.run(2)
    run.lost = lambda rank, step: rank == 3
    assert run.run(100, {2: slow_compute(2.0)}) == []
    assert len(run.watch._windows) < 8


@pytest.mark.parametrize("record", [{}, {"step": 3}, {"step": "x", "data_s": 1.0},
                                    {"step": 4, **{f"{p}_s": "nan" for p in USUAL}}])  # fmt: skip
def test_events_of_other_programs_are_left_alone(record):
    watch = StragglerWatch(2)
    assert watch.note(0, "n0", record) == []


def test_a_thousand_ranks_in_a_shuffled_order():
    dice = random.Random(7)
    watch, said = StragglerWatch(1000), []
    for step in range(20, 180, 20):
        for rank in dice.sample(range(1000), 1000):
            factor = dice.uniform(0.95, 1.05) * (1.8 if rank == 531 and step > 40 else 1.0)
            record = {"step": step, "exposed_comm_s": 0.1,
                      **{f"{part}_s": s * factor for part, s in USUAL.items()}}  # fmt: skip
            said += watch.note(rank, f"n{rank // 8}", record)
    assert [(f.kind, f.ranks, f.host) for f in said] == [("straggler", (531,), "n66")]


@given(st.lists(st.floats(0.001, 1000.0), min_size=2, max_size=30))
def test_factors_are_those_of_the_median_of_the_others(values):
    expected = [
        value / statistics.median([*values[:place], *values[place + 1 :]])
        for place, value in enumerate(values)
    ]
    assert factors_to_others(values) == pytest.approx(expected)
