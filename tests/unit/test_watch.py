"""Who is gone, stopped or hung: rule by rule, on ranks as their heartbeats show them."""

import pytest

from hpctrain.launch.outcome import RankState
from hpctrain.launch.watch import (
    PATIENCE_S,
    SHORTEST_HANG_S,
    SILENCE_S,
    STOPPED_S,
    UNTIMED_S,
    Finding,
    find_trouble,
    hang_limit_s,
    has_left_early,
)
from hpctrain.pulse import PHASES, UNTIMED, Pulse

NOW_S = 1000.0


def pulse(phase="exchange", step=5, longest_s=0.5, steps_done=5):
    return Pulse(9, step, phase, 0.0, longest_s, steps_done)


def rank(phase="exchange", step=5, still_s=0.0, *, heard_s=1.0, longest_s=0.5, **more):
    """A rank that runs; `phase` None for one without a pulse."""
    own = None if phase is None else pulse(phase, step, longest_s)
    state = RankState("n1", reported=True, heard_at_s=NOW_S - heard_s, pulse=own, still_s=still_s)
    for name, value in more.items():
        setattr(state, name, value)
    return state


def find(*ranks, hang_timeout_s=None):
    return find_trouble(ranks, NOW_S, hang_timeout_s)


# -- silent, stopped -----------------------------------------------------------------------------


def test_ranks_that_work_are_no_trouble():
    assert find(rank("forward"), rank("exchange", still_s=29.0), rank(None)) is None
    assert find() is None


def test_a_rank_that_is_not_heard_is_named():
    found = find(rank(), rank(heard_s=SILENCE_S + 1), rank(heard_s=SILENCE_S - 1))
    assert (found.kind, found.ranks) == ("silent", (1,))
    assert found.reason == "not heard for 21 s: its host, or the way to it, is gone"
    assert not found.needs_stacks


def test_all_ranks_of_a_silent_host_are_named():
    quiet = rank(heard_s=SILENCE_S + 5)
    assert find(rank(), quiet, rank(), quiet).ranks == (1, 3)


@pytest.mark.parametrize("state", [{"reported": False}, {"ended": True}])
def test_who_has_not_begun_or_has_ended_is_not_missed(state):
    assert find(rank(), rank(heard_s=500.0, stopped_s=99.0, **state)) is None


def test_a_stopped_program_is_named_before_the_hang_that_it_causes():
    found = find(rank(still_s=999.0), rank("backward", still_s=999.0, stopped_s=STOPPED_S))
    assert (found.kind, found.ranks) == ("stopped", (1,))
    assert "SIGSTOP" in found.reason
    assert found.needs_stacks


def beat(state="S", pulse=None, still_s=None):
    return {"kind": "beat", "step": None, "state": state, "pulse": pulse, "still_s": still_s}


def test_stopped_is_who_every_heartbeat_says_so_of():
    state = RankState("n1", reported=True)
    for now_s, letter, stopped_s in [(0, "R", 0), (5, "T", 0), (10, "T", 5), (15, "T", 10),
                                     (20, "S", 0), (25, "T", 0), (30, "t", 0)]:  # fmt: skip
        state.note_beat(beat(letter), float(now_s))
        state.heard_at_s = now_s + 4.0  # output came as well: no heartbeat
        assert state.stopped_s == stopped_s


def test_a_heartbeat_carries_the_pulse_as_json_does():
    state = RankState("n1", reported=True)
    state.note_beat(beat(pulse=[3, 7, "data", 50.0, 0.25, 7], still_s=1.5), 10.0)
    assert state.pulse == Pulse(3, 7, "data", 50.0, 0.25, 7)
    assert (state.still_s, state.step) == (1.5, 7)
    state.note_beat(beat(), 15.0)
    assert state.pulse.step == 7


# -- how long a standstill may be ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "limit_s"),
    [
        ([pulse()], SHORTEST_HANG_S),
        ([pulse(longest_s=7.0), pulse()], 70.0),
        ([pulse(longest_s=20.0, phase="data"), pulse()], 200.0),
        ([pulse(), pulse("data")], PATIENCE_S["data"]),
        ([pulse(), pulse("evaluation")], 120.0),
        ([pulse(), pulse("checkpoint")], UNTIMED_S),
        ([pulse(), pulse("leaving")], UNTIMED_S),
        ([pulse(), pulse(steps_done=0)], UNTIMED_S),
        ([pulse("")], 1800.0),
        ([pulse("", longest_s=600.0)], 6000.0),
    ],
)
def test_the_limit_comes_from_the_runs_own_history(own, limit_s):
    assert hang_limit_s(own) == limit_s


@pytest.mark.parametrize("phase", PHASES)
def test_a_limit_that_was_asked_for_holds_but_for_what_nobody_can_time(phase):
    own = [pulse(longest_s=100.0), pulse(phase)]
    assert hang_limit_s(own, 7.0) == (UNTIMED_S if phase in UNTIMED else 7.0)
    assert hang_limit_s(own, 2000.0) == 2000.0


def test_a_run_hangs_when_the_last_of_its_ranks_stands_still():
    assert find(rank(still_s=40.0), rank("backward", still_s=29.0)) is None
    assert find(rank(still_s=40.0), rank("backward", still_s=31.0)).kind == "hang"


def test_history_tells_slow_from_hung():
    slow = [rank(still_s=45.0, longest_s=5.0), rank("backward", still_s=45.0, longest_s=5.0)]
    assert find(*slow) is None
    assert find(*slow, hang_timeout_s=40.0).kind == "hang"


def test_a_checkpoint_may_take_its_time():
    ranks = [rank("checkpoint", still_s=600.0), rank(still_s=600.0)]
    assert find(*ranks) is None
    assert find(*(rank("checkpoint", still_s=UNTIMED_S + 1),) * 2).kind == "hang"


# -- whose fault it is ---------------------------------------------------------------------------


def hang(*ranks):
    found = find_trouble(ranks, NOW_S, 10.0)
    assert found.kind == "hang"
    return found


def test_who_did_not_arrive_is_named_and_not_who_waits():
    found = hang(rank(still_s=40), rank("backward", still_s=41), rank(still_s=42))
    assert found.ranks == (1,)
    assert "it did not arrive, while 2 of 3 ranks wait (after step 5, in backward)" in found.reason
    assert "for 40 s (limit 10 s)" in found.reason


def test_several_that_did_not_arrive_are_all_named():
    assert hang(rank("data", still_s=40), rank(still_s=40), rank("data", still_s=40)).ranks == (
        0, 2,
    )  # fmt: skip


def test_who_works_on_a_later_step_than_others_is_not_the_culprit():
    found = hang(rank("data", step=6, still_s=40), rank("optimizer", step=5, still_s=40))
    assert found.ranks == (1,)


def test_who_waits_a_step_behind_did_not_get_what_others_sent():
    found = hang(rank(step=6, still_s=40), rank(step=5, still_s=40), rank(step=6, still_s=40))
    assert found.ranks == (1,)
    assert "did not get what the others sent" in found.reason


def test_where_all_wait_for_each_other_nobody_is_blamed():
    found = hang(rank(still_s=40), rank(still_s=40), rank("barrier", still_s=40))
    assert found.ranks == ()
    assert "wait for each other: is the network between them whole?" in found.reason


def test_where_all_do_the_same_nobody_is_blamed():
    found = hang(rank("optimizer", still_s=40), rank("optimizer", still_s=40))
    assert found.ranks == ()
    assert found.reason.endswith("after step 5, in optimizer")


def test_where_waiting_is_part_of_the_backward_pass_who_has_not_come_to_it_is_named():
    """DDP's ranks wait for each other's gradients there, and do not say so."""
    found = hang(rank("backward", still_s=40), rank("forward", still_s=40),
                 rank("backward", still_s=40))  # fmt: skip
    assert found.ranks == (1,)
    assert "it did not arrive, while 2 of 3 ranks wait (after step 5, in forward)" in found.reason


def test_a_host_that_was_suspended_has_not_stood_still():
    """The program's own clock went on for an hour; its shim's heartbeats never said so."""
    state = rank(None)

    def beat(changes, still_s):
        own = [changes, 5, "forward", 0.0, 3600.0, 5]
        state.note_beat({"step": 5, "state": "S", "pulse": own, "still_s": still_s}, NOW_S)

    for changes, still_s in ((8, 4.0), (9, 0.0), (9, 20.0), (9, 90.0)):
        beat(changes, still_s)
    assert state.longest_still_s == 4.0
    assert find(state) is None
    beat(9, 91.0)
    assert "(limit 90 s)" in find(state).reason


def test_a_single_rank_is_its_own_culprit():
    found = hang(rank("forward", still_s=40))
    assert (found.ranks, found.reason) == (
        (0,), "it stands still for 40 s (limit 10 s), after step 5, in forward",
    )  # fmt: skip


# -- programs of others --------------------------------------------------------------------------


def test_a_program_without_a_pulse_is_judged_by_its_life_alone():
    assert find(rank(None, still_s=9999.0), rank(None, still_s=9999.0)) is None


def test_a_foreign_program_gets_half_an_hour():
    assert find(rank("", still_s=1700.0), rank(None)) is None
    found = find(rank("", still_s=1801.0), rank(None))
    assert (found.kind, found.ranks) == ("hang", ())
    assert "they report steps alone" in found.reason


def test_of_foreign_ranks_the_one_with_fewer_steps_is_named():
    found = hang(rank("", step=8, still_s=40), rank("", step=7, still_s=40))
    assert found.ranks == (1,)
    assert "after step 7, in its own code" in found.reason


# -- who leaves with 0 ---------------------------------------------------------------------------


def gone(phase, step=5):
    return rank(phase, step, ended=True, exit_code=0)


@pytest.mark.parametrize("phase", PHASES)
def test_leaving_in_the_middle_of_a_step_is_early(phase):
    assert has_left_early(gone(phase)) == (phase not in ("", "leaving", "barrier"))


def test_leaving_is_early_only_with_0_and_only_where_it_can_be_told():
    assert not has_left_early(rank("backward", ended=True, exit_code=1))
    assert not has_left_early(rank("backward"))
    assert not has_left_early(gone(None))


def test_who_left_a_foreign_program_is_why_the_others_hang():
    found = find_trouble([rank("", still_s=40), gone(None), rank(None)], NOW_S, 10.0)
    assert (found.kind, found.ranks) == ("left early", (1,))
    assert found.reason.startswith("left early, with exit code 0, while others were at work")
    found = find_trouble([gone("", step=4), rank("", step=4, still_s=40)], NOW_S, 10.0)
    assert found.ranks == (0,)


def test_who_left_ahead_of_the_others_or_after_a_goodbye_is_not():
    for other in (gone("", step=99), gone("leaving"), gone("barrier")):
        found = find_trouble([other, rank("forward", still_s=40)], NOW_S, 10.0)
        assert (found.kind, found.ranks) == ("hang", (1,))


def test_ranks_that_leave_one_by_one_are_no_trouble():
    assert find(gone(None), rank("", still_s=100.0), gone("leaving")) is None


def test_a_finding_says_whether_stacks_help():
    kinds = ("silent", "stopped", "hang", "left early")
    assert [Finding(kind, (), "").needs_stacks for kind in kinds] == [False, True, True, False]
