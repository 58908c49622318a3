"""How an attempt ended, whether another may help, and whether there is one: pure decisions."""

import signal

import pytest

from hpctrain.launch.attempts import (
    BACKOFF_S,
    MOST_WITHOUT_PROGRESS,
    Progress,
    decide_restart,
    find_unfinished,
)
from hpctrain.launch.outcome import Outcome, RankFailure, RankState, conclude, find_final_reason


def rank(**known):
    return RankState(**{"host": "n1", "reported": True, "ended": True, "exit_code": 0, **known})


def failure(code=1, kind="exit", reason="exit code 1"):
    return RankFailure(1, "n2", code, None, reason, kind)


def end(ranks=(), failed=None, mpirun_code=0, **more):
    known = dict(mpirun_was_signalled=False, stop_signal=None, save_signal=None, finished=False,
                 left_saved=False, refusal="")  # fmt: skip
    outcome = conclude(ranks or [rank(), rank()], failed, mpirun_code, **{**known, **more})
    return outcome.state, outcome.exit_code, outcome.retryable


# -- how it ended ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("told", "expected"), [
    ({}, ("done", 0, False)),
    ({"mpirun_code": 9}, ("done", 0, False)),  # every rank said that it is fine
    ({"save_signal": signal.SIGTERM}, ("resumable", 75, True)),
    ({"save_signal": signal.SIGTERM, "finished": True}, ("done", 0, False)),
    ({"stop_signal": 2}, ("stopped", 130, True)),
    ({"stop_signal": 15, "failed": None}, ("stopped", 143, True)),
    ({"failed": failure(7)}, ("failed", 7, True)),
    ({"left_saved": True}, ("resumable", 75, True)),  # a signal past the launcher
    ({"left_saved": True, "finished": True}, ("done", 0, False)),
    ({"failed": failure(None), "mpirun_code": 213}, ("failed", 137, True)),  # a victim's code
    ({"failed": failure(None)}, ("failed", 137, True)),
    ({"failed": failure(2)}, ("failed", 2, False)),
    ({"failed": failure(127, "refused")}, ("failed", 127, False)),
    ({"failed": failure(1), "refusal": "step 3: the loss is not finite"}, ("failed", 1, False)),
    ({"ranks": [rank(exit_code=None)], "failed": failure(7), "mpirun_code": -9},
     ("failed", 137, True)),  # somebody killed mpirun
    ({"failed": failure(7), "mpirun_code": -9, "mpirun_was_signalled": True}, ("failed", 7, True)),
    ({"ranks": [rank(), rank(reported=False, exit_code=None)], "mpirun_code": 255},
     ("failed", 1, True)),
    ({"ranks": [rank(), rank(exit_code=None)], "mpirun_code": 5}, ("failed", 5, True)),
])  # fmt: skip
def test_how_an_attempt_ended(told, expected):
    assert end(**told) == expected


def test_an_outcome_says_how_far_it_came_and_who_never_began():
    ranks = [rank(step=4), rank(step=6), rank(reported=False, step=None, exit_code=None)]
    outcome = conclude(
        ranks, failure(), 1, mpirun_was_signalled=False, stop_signal=None, save_signal=None,
        finished=False, left_saved=False, refusal="",
    )  # fmt: skip
    assert (outcome.step, outcome.unreported_ranks, outcome.needs_sweep) == (6, (2,), True)


@pytest.mark.parametrize(("failed", "refusal", "expected"), [
    (None, "", ""),
    (failure(1), "", ""),
    (failure(137), "", ""),
    (failure(None, "lost"), "", ""),
    (failure(2), "", "exit code 2 (usage)"),
    (failure(126), "", "exit code 126 (it cannot be executed)"),
    (failure(127, "refused", "x: No such file"), "", "x: No such file"),
    (failure(1, "refused", "another MPI"), "", "another MPI"),
    (failure(137), "data: damaged", "data: damaged"),
])  # fmt: skip
def test_what_rules_out_another_attempt(failed, refusal, expected):
    assert find_final_reason(failed, refusal) == expected


# -- progress --------------------------------------------------------------------------------------


def failed(step=None, saved=None, **more):
    known = {"retryable": True, **more}
    return Outcome("failed", 1, 1.0, failure(), step=step, saved_step=saved, **known)


def after(*outcomes):
    progress = Progress()
    for outcome in outcomes:
        progress = progress.after(outcome)
    return progress


@pytest.mark.parametrize(("outcomes", "stalled"), [
    ([failed()], 0),
    ([failed(), failed()], 1),
    ([failed(5), failed(5), failed(3)], 2),
    ([failed(5), failed(5), failed(6)], 0),
    ([failed(5), failed(5, saved=4)], 0),
    ([failed(5, saved=4), failed(3, saved=4), failed(None)], 2),
    ([failed(), failed(0)], 0),
])  # fmt: skip
def test_an_attempt_that_raises_nothing_is_no_progress(outcomes, stalled):
    assert after(*outcomes).stalled == stalled


def test_progress_remembers_the_highest():
    progress = after(failed(9, 4), failed(5, 5), failed())
    assert (progress.step, progress.saved_step, progress.attempts) == (9, 5, 3)


def test_a_run_that_gets_nowhere_waits_longer():
    waits = [after(*[failed()] * count).backoff_s for count in range(1, 6)]
    assert waits == [*BACKOFF_S, BACKOFF_S[-1], BACKOFF_S[-1]]


# -- again? ----------------------------------------------------------------------------------------


def decide(outcome, progress=None, restarts=0, most=5, says_steps=True):
    progress = progress or after(outcome)
    return decide_restart(outcome, progress, restarts, most, says_steps=says_steps)


@pytest.mark.parametrize("state", ["done", "stopped", "resumable"])
def test_only_a_failure_is_tried_again(state):
    verdict = decide(Outcome(state, 0, 1.0, retryable=True))
    assert (verdict.goes_on, verdict.reason) == (False, "")


def test_what_fails_while_it_leaves_is_not_wanted_back():
    assert not decide(failed(5, stop_signal=15)).goes_on


def test_without_being_asked_nothing_is_tried_again_or_said():
    verdict = decide(failed(), most=0)
    assert (verdict.goes_on, verdict.reason) == (False, "")


def test_it_is_tried_as_often_as_asked():
    assert decide(failed(3), restarts=4).goes_on
    verdict = decide(failed(3), restarts=5)
    assert not verdict.goes_on
    assert verdict.reason == "given up: 5 restarts are used up (--max-restarts)"
    assert not verdict.exhausted
    assert "1 restart is used up" in decide(failed(), restarts=1, most=1).reason


def test_what_needs_a_person_is_not_tried_again():
    verdict = decide(failed(retryable=False, final_reason="exit code 2 (usage)"))
    assert (verdict.goes_on, verdict.reason) == (False, "not tried again: exit code 2 (usage)")


def test_three_restarts_without_progress_are_enough():
    attempts = [failed(7, 4)] * (1 + MOST_WITHOUT_PROGRESS)
    assert decide(attempts[0], after(*attempts[:-1]), restarts=2).goes_on
    verdict = decide(attempts[0], after(*attempts), restarts=3)
    assert verdict.exhausted
    assert verdict.reason == (
        "given up: 3 restarts in a row got no further than step 7 (saved: step 4)"
    )
    nothing = after(*[failed()] * 4)
    assert "than its first step" in decide(failed(), nothing, restarts=3).reason


def test_of_a_command_that_reports_no_steps_progress_is_unknown():
    assert decide(failed(), after(*[failed()] * 4), restarts=3, says_steps=False).goes_on
    assert not decide(failed(1), after(*[failed(1)] * 4), restarts=3, says_steps=False).goes_on


# -- the attempt of a launcher that died -----------------------------------------------------------

FIRST = {"event": "attempt", "attempt": 1, "attempt_id": "r.a", "hosts": ["n1", "n2"]}
SECOND = {"event": "attempt", "attempt": 2, "attempt_id": "r.b", "hosts": ["n1"]}


@pytest.mark.parametrize(("events", "expected"), [
    ([], None),
    ([FIRST], (1, "r.a", ("n1", "n2"))),
    ([FIRST, {"event": "step", "step": 1}], (1, "r.a", ("n1", "n2"))),
    ([FIRST, {"event": "attempt_finished"}], None),
    ([FIRST, {"event": "run_finished"}], None),
    ([FIRST, {"event": "attempt_finished"}, {"event": "restart"}], None),
    ([FIRST, {"event": "attempt_finished"}, SECOND], (2, "r.b", ("n1",))),
    ([FIRST, SECOND], (2, "r.b", ("n1",))),
    ([{"event": "attempt", "attempt": 1}], None),  # of a version that wrote no name
])  # fmt: skip
def test_an_attempt_without_an_end_is_found(events, expected):
    found = find_unfinished(events)
    assert (found and (found.number, found.attempt_id, found.hosts)) == expected


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_one_that_has_just_failed_may_have_left_something(state):
    ended = {"event": "attempt_finished", "state": state, "time_s": 100.0}
    events = [FIRST, ended, {"event": "run_finished", "state": state}]
    assert find_unfinished(events, failed_since_s=99.0).ended_at_s == 100.0
    assert find_unfinished(events, failed_since_s=101.0) is None
    assert find_unfinished([*events, SECOND], failed_since_s=99.0).ended_at_s is None
    for good in ("done", "resumable"):
        events = [FIRST, {**ended, "state": good}, {"event": "run_finished", "state": good}]
        assert find_unfinished(events, failed_since_s=99.0) is None
