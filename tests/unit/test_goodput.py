"""Where a run's time went: on fixed events, and on any."""

import json

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.cli.runs import command
from hpctrain.goodput import CAUSES, measure_goodput, read_goodput


class Story:
    """Events on a clock that is moved by hand."""

    def __init__(self):
        self.now_s, self.events, self.rank_steps = 100.0, [], []

    def __call__(self, event, after_s=0.0, **fields):
        self.now_s += after_s
        self.events.append({"event": event, "time_s": self.now_s, **fields})
        return self

    def steps(self, numbers, takes_s=1.0, data_s=0.0, every=1):
        """Steps that take so long each, reported `every` so many."""
        for number in numbers:
            self("step", takes_s * every, step=number, step_time_s=takes_s)
            self.rank_steps.append({"event": "rank_step", "step": number, "data_s": data_s})
        return self

    def measure(self):
        return measure_goodput(self.events, self.rank_steps)


def begin(story=None, after_s=0.0, **fields):
    return (story or Story())("attempt", after_s, **fields)("train_started", 2.0)


def losses(goodput):
    return {cause: s for cause, s in goodput.losses_s.items() if s}


def test_an_undisturbed_run():
    story = begin().steps([1], 1.0, data_s=0.25).steps([2, 3], 1.0, data_s=0.25)
    story("eval", 3.0, step=3).steps([4], 1.0, data_s=0.25)
    story("checkpoint", 0.5, step=4, stall_s=0.1)
    story("attempt_finished", 0.25, state="done")("run_finished", 9.0, state="done")
    goodput = story.measure()
    assert goodput.productive_s == 3.0
    assert losses(goodput) == {
        "start_up": 2.0, "data_wait": 1.0, "evaluation": 3.0, "checkpoint_stall": 0.5,
        "other": 0.25,
    }  # fmt: skip
    assert (goodput.total_s, goodput.away_s, goodput.steps, goodput.attempts) == (9.75, 0.0, 4, 1)
    assert goodput.share == pytest.approx(3.0 / 9.75)


def test_a_copy_is_taken_from_the_step_that_waited_for_it():
    story = begin().steps([1, 2])("checkpoint", 0.0, step=2, stall_s=0.4).steps([3, 4])
    goodput = story("attempt_finished", state="done").measure()
    assert losses(goodput) == {"start_up": 2.0, "checkpoint_stall": 0.4}
    assert goodput.productive_s == 3.6


def failed_and_resumed():
    """Six steps, saved at four; 5 s to notice, 7 s until the next attempt, which saves at eight."""
    story = begin().steps(range(1, 5)).steps([5, 6], 1.0, data_s=0.5)
    story("checkpoint", 0.0, step=4, stall_s=0.0)
    story("attempt_finished", 5.0, state="failed")("restart", 6.0)
    begin(story, 1.0)("resumed", step=4)
    return story.steps(range(5, 9))("attempt_finished", state="done")


def test_steps_that_were_done_again_are_lost_and_so_is_the_way_back():
    goodput = failed_and_resumed()("run_finished", state="done").measure()
    assert (goodput.steps, goodput.steps_lost, goodput.productive_s) == (8, 2, 8.0)
    assert losses(goodput) == {"start_up": 4.0, "lost_work": 2.0, "restart": 12.0}
    assert goodput.away_s == 0.0
    assert goodput.in_words() == (
        "goodput 30.8%: 8.0 s of 26.0 s; restart 12.0 s, start-up 4.0 s, lost work 2.0 s "
        "(2 steps done again)"
    )


def test_reports_of_several_steps_are_cut_at_the_checkpoint():
    story = begin().steps([10, 20], 0.5, every=10)("attempt_finished", state="failed")("restart")
    begin(story)("resumed", step=15).steps([20], 0.5, every=5)("attempt_finished", state="done")
    goodput = story.measure()
    assert (goodput.steps, goodput.steps_lost) == (20, 5)
    assert goodput.losses_s["lost_work"] == 2.5
    assert goodput.productive_s == 10.0


def test_a_later_attempt_that_goes_further_back_takes_more_with_it():
    story = failed_and_resumed()("run_finished", state="failed")
    begin(story, 3600.0)("resumed", step=2).steps(range(3, 9))("attempt_finished", state="done")
    goodput = story.measure()
    assert (goodput.steps, goodput.steps_lost) == (8, 8)
    assert goodput.productive_s == 8.0
    assert goodput.away_s == 3600.0  # between two launches: nobody's time


def test_attempts_that_never_began_are_ways_back():
    story = begin().steps([1, 2])("attempt_finished", state="failed")("restart", 3.0)
    story("attempt")("attempt_finished", 120.0, state="failed")("restart", 10.0)
    begin(story)("resumed", step=2).steps([3])("attempt_finished", state="done")
    goodput = story.measure()
    assert losses(goodput) == {"start_up": 4.0, "restart": 133.0}
    assert (goodput.attempts, goodput.steps_lost) == (3, 0)


@pytest.mark.parametrize("ended", [True, False])
def test_days_after_a_restart_that_never_was_are_nobodys(ended):
    """The launcher announced one, and then gave up or died; somebody went on later."""
    story = begin().steps([1, 2])("attempt_finished", state="failed")("restart", 3.0)
    if ended:
        story("run_finished", 1.0, state="failed")
    begin(story, 86400.0, reason="resumed")("resumed", step=2).steps([3])
    goodput = story("attempt_finished", state="done").measure()
    assert losses(goodput) == {"start_up": 4.0}
    assert goodput.away_s == pytest.approx(86404.0 if ended else 86403.0)


def test_a_run_that_ended_after_such_a_restart_may_be_started_by_any_launcher():
    story = begin().steps([1, 2])("attempt_finished", state="failed")("restart", 3.0)
    begin(story("run_finished", state="failed"), 86400.0).steps([3])
    assert story.measure().away_s == pytest.approx(86403.0)


def test_a_launcher_that_died_left_no_end():
    story = begin().steps([1, 2, 3])("rank_says", 4.0)
    begin(story, 50.0)("resumed", step=2).steps([3])("attempt_finished", state="done")
    goodput = story.measure()
    assert losses(goodput) == {"start_up": 4.0, "restart": 4.0, "lost_work": 1.0}
    assert goodput.away_s == 50.0


def test_a_run_that_runs_is_counted_until_its_last_event():
    goodput = begin().steps([1, 2]).measure()
    assert (goodput.total_s, goodput.productive_s) == (4.0, 2.0)


def test_a_foreign_program_from_report_to_report():
    story = Story()("attempt")("step", 5.0, step=0)("step", 1.0, step=1)
    story("attempt_finished", 1.0, state="failed")("restart", 2.0)("attempt")
    story("step", 5.0, step=0)("step", 1.0, step=1)("step", 1.0, step=2)
    goodput = story("attempt_finished", state="done").measure()
    assert losses(goodput) == {"start_up": 10.0, "lost_work": 1.0, "restart": 3.0}
    assert (goodput.productive_s, goodput.steps, goodput.steps_lost) == (2.0, 3, 2)


def test_without_steps_there_is_nothing_to_say():
    assert measure_goodput([]) is None
    assert Story()("attempt")("attempt_finished", 9.0, state="done").measure() is None


NUMBERS = st.integers(-3, 30) | st.floats() | st.none() | st.text(max_size=2) | st.booleans()
EVENTS = st.fixed_dictionaries({
    "event": st.sampled_from(["attempt", "step", "resumed", "checkpoint", "eval", "restart",
                              "train_started", "attempt_finished", "run_finished", "x"]),
    "time_s": st.floats(0, 1e4) | NUMBERS,
}, optional={
    "step": NUMBERS, "step_time_s": NUMBERS, "stall_s": NUMBERS,
    "state": st.sampled_from(["done", "failed", "stopped", "resumable"]),
})  # fmt: skip


@given(events=st.lists(EVENTS, max_size=40), waits=st.lists(EVENTS, max_size=5))
def test_whatever_is_reported_the_parts_are_no_less_than_nothing_and_make_up_the_whole(
    events, waits
):
    goodput = measure_goodput(events, [{**wait, "data_s": wait.get("stall_s")} for wait in waits])
    if goodput is None:
        return
    assert set(goodput.losses_s) == set(CAUSES)
    assert min(goodput.productive_s, goodput.away_s, *goodput.losses_s.values()) >= 0
    assert sum(goodput.losses_s.values()) + goodput.productive_s == pytest.approx(goodput.total_s)
    assert goodput.steps >= 0
    assert goodput.steps_lost >= 0


def test_a_runs_page_shows_it(tmp_path):
    path = tmp_path / "runs" / "r"
    (path / "ranks").mkdir(parents=True)
    (path / ".lock").touch()
    story = failed_and_resumed()
    for name, records in (("events", story.events), ("ranks/rank-00000", story.rank_steps)):
        lines = [json.dumps(record) + "\n" for record in records]
        (path / f"{name}.jsonl").write_text("".join(lines) + '{"event": "rank_step", "st')
    assert read_goodput(path).steps_lost == 2
    shown = CliRunner().invoke(command, ["show", "r", "--runs-dir", str(path.parent)])
    assert "goodput          30.8%: 8.0 s of 26.0 s; restart 12.0 s" in shown.output
    as_json = CliRunner().invoke(command, ["show", "r", "--runs-dir", str(path.parent), "--json"])
    goodput = json.loads(as_json.output)["goodput"]
    assert (goodput["steps"], goodput["losses_s"]["lost_work"]) == (8, 2.0)
    assert goodput["share"] == pytest.approx(8 / 26)
