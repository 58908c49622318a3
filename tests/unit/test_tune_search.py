"""The search for the fastest settings, on candidates whose times are known: pure, no clock."""

import random

import pytest
from tune_simulation import (
    GAINS,
    LAUNCH_S,
    VALUES,
    landscape,
    simulate,
    simulate_nothing_gains,
    simulate_one_gains,
    simulate_reach,
)

from hpctrain.tune.arms import DEFAULT, arm_name, combine, finalists, neighbours
from hpctrain.tune.halving import LEAST_PAIRS, count_trials
from hpctrain.tune.search import FINAL, MOST_STEPS, STEPS, Limits, Round, Search
from hpctrain.tune.verdict import gain_of, judge


@pytest.mark.parametrize(
    ("noise", "part", "least"), [(0.01, 0.95, 0.9), (0.02, 0.9, 0.85), (0.03, 0.75, 0.85)]
)
def test_it_comes_within_5_percent_of_the_best_of_the_whole_grid(noise, part, least):
    reached = simulate_reach(range(60), noise)
    assert sum(each >= 0.95 for each in reached) >= part * len(reached)
    assert min(reached) > least


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_no_candidate_gets_more_steps_than_allowed(noise):
    for seed in range(10):
        search, asks = simulate(landscape(seed), seed=seed, noise=noise, budget_s=1e9)
        assert max(search.steps.values()) <= MOST_STEPS
        assert sum(search.steps.values()) == STEPS * len(asks)
        assert len(asks) <= count_trials(VALUES)


@pytest.mark.parametrize("budget_s", [5.0, 20.0, 60.0, 100.0, 150.0, 300.0, 600.0])
def test_the_budget_is_kept_and_used(budget_s):
    search, asks = simulate(lambda arm: 0.3, budget_s=budget_s)
    assert search.spent_s <= max(budget_s, search.walls_s[0])
    fits = int(budget_s // (LAUNCH_S + STEPS * 0.3))
    if fits >= 10:  # a look, two rounds of two, and three pairs
        assert search.pairs >= LEAST_PAIRS
        assert search.spent_s >= 0.5 * min(budget_s, 300.0)
    if fits < 8:
        assert search.pairs == 0
    assert {each.arm for each in asks} >= {DEFAULT}


def test_a_budget_that_is_too_small_for_all_leaves_each_knob_its_first_value():
    search, asks = simulate(lambda arm: 0.3, budget_s=100.0)
    alone = {each.arm for each in asks if each.rung == "alone"} - {DEFAULT}
    assert {arm[0][1] for arm in alone} == {"1"}
    assert set(alone) & set(search.unmeasured) == set()
    assert len(alone) + len(search.unmeasured) == sum(map(len, VALUES.values()))


def test_the_default_is_in_the_first_rungs_and_in_every_final_round():
    search, _ = simulate(landscape(1), noise=0.02)
    rounds = [each for each in search.rounds if each.rung in ("alone", "again", FINAL)]
    assert all(DEFAULT in each.step_s for each in rounds)
    assert sum(each.rung == FINAL for each in rounds) >= LEAST_PAIRS


def test_the_same_answers_lead_to_the_same_questions():
    first, second = (simulate(landscape(3), seed=7, noise=0.05)[1] for _ in range(2))
    assert first == second
    other = simulate(landscape(3), seed=8, noise=0.05)[1]
    assert [each.arm for each in other] != [each.arm for each in first]


def test_a_gain_that_only_two_values_have_together_is_found():
    """Alone each gains a little; a third value is good alone and bad beside them."""
    times = {"": 1.0, "a": 0.95, "c": 0.95, "ac": 0.6, "d": 0.85, "ad": 1.2, "cd": 1.2, "acd": 1.3}
    of_interest = {("a", "1"), ("c", "2"), ("d", "1")}

    def time_of(arm):
        return 0.3 * times["".join(knob for knob, label in arm if (knob, label) in of_interest)]

    search, _ = simulate(time_of, noise=0.002)
    assert arm_name(judge(search, VALUES).arm) == "a=1 c=2"


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("noise", [0.01, 0.02, 0.03])
def test_at_most_one_search_in_20_takes_what_gains_nothing(noise, one_sided):
    """Neither where no value gains, nor beside one that does."""
    nothing = simulate_nothing_gains(range(60), noise, one_sided)
    for verdict in nothing:
        if verdict.arm == DEFAULT:
            assert verdict.gain is None
            assert not any(choice.taken for choice in verdict.choices)
            assert {choice.knob for choice in verdict.choices} == set(VALUES)
    assert sum(verdict.arm != DEFAULT for verdict in nothing) <= 3
    beside = simulate_one_gains(range(60), noise, one_sided)
    assert sum(bool(set(verdict.arm) - set(GAINS)) for verdict in beside) <= 3
    assert sum(set(GAINS) <= set(verdict.arm) for verdict in beside) >= 57


def test_a_real_gain_is_taken_with_its_size_and_the_rest_is_not():
    def time_of(arm):
        return 0.3 / (1.2 if ("c", "3") in arm else 1.0) * (1.05 if ("b", "1") in arm else 1.0)

    search, _ = simulate(time_of, noise=0.004)
    verdict = judge(search, VALUES)
    choices = {choice.knob: choice for choice in verdict.choices}
    assert dict(verdict.arm)["c"] == "3"
    assert choices["c"].taken
    assert choices["c"].gain.median == pytest.approx(1.2, rel=0.02)
    assert choices["c"].gain.low <= choices["c"].gain.median <= choices["c"].gain.high
    assert (choices["b"].taken, choices["b"].why) == (False, "not faster")


def test_a_candidate_that_fails_is_left_out_and_said_to():
    def time_of(arm):
        return None if ("b", "1") in arm else 0.2 if ("c", "1") in arm else 0.3

    search, asks = simulate(time_of)
    assert sum(("b", "1") in each.arm for each in asks) == 1
    choices = {choice.knob: choice for choice in judge(search, VALUES).choices}
    assert choices["b"].why == "fails: b=1"
    assert choices["c"].taken


def test_where_all_candidates_fail_the_default_stays():
    search, asks = simulate(lambda arm: 0.3 if arm == DEFAULT else None)
    assert len(asks) == 2 + sum(map(len, VALUES.values()))
    verdict = judge(search, VALUES)
    assert verdict.arm == DEFAULT
    assert all(choice.why.startswith("fails: ") for choice in verdict.choices)


def test_nothing_is_measured_after_a_default_that_fails():
    search, asks = simulate(lambda arm: None)
    assert [each.arm for each in asks] == [DEFAULT]
    assert search.pairs == 0


def test_what_changes_the_numbers_is_measured_to_the_end_and_never_chosen():
    def time_of(arm):
        return 0.3 * (0.5 if ("b", "1") in arm else 1.0) * (0.9 if ("d", "2") in arm else 1.0)

    lossy = frozenset({"b"})
    search, asks = simulate(time_of, noise=0.002, never=lossy)
    verdict = judge(search, VALUES, lossy)
    assert dict(verdict.arm) == {"d": "2"}
    choice = next(choice for choice in verdict.choices if choice.knob == "b")
    assert not choice.taken
    assert "--allow-lossy" in choice.why
    assert choice.gain.median == pytest.approx(2.0, rel=0.02)
    assert choice.gain.pairs >= LEAST_PAIRS
    assert all(each.arm == (("b", "1"),) for each in asks if ("b", "1") in each.arm)
    allowed, _ = simulate(time_of, noise=0.002)
    assert dict(judge(allowed, VALUES).arm) == {"b": "1", "d": "2"}


def test_gains_come_from_pairs_of_the_same_round():
    search, _ = simulate(lambda arm: 0.25 if arm == (("a", "1"),) else 0.3, values={"a": ("1",)})
    gain = gain_of(search, (("a", "1"),), DEFAULT)
    assert gain.median == pytest.approx(1.2)
    assert gain.pairs == search.pairs
    assert "1.200 (1.200 to 1.200" in str(gain)
    assert gain_of(search, (("z", "1"),), DEFAULT) is None


def test_a_choice_within_its_spread_falls_out_of_a_set_that_gains():
    """b adds to a what the noise hides: a alone is taken."""
    rng = random.Random(0)
    a, both = (("a", "1"),), (("a", "1"), ("b", "1"))
    search = Search(Limits(600.0))
    for number in range(7):
        drift = 1.0 + 0.1 * number
        search.rounds.append(
            Round(FINAL, {DEFAULT: 0.3 * drift, a: 0.25 * drift * (1 + 0.01 * rng.random()),
                          both: 0.25 * drift * (1 + 0.01 * rng.random())})
        )  # fmt: skip
    search.finalists = (both, a)
    assert judge(search, {"a": ("1",), "b": ("1",)}).arm == a


def test_combinations_neighbours_and_finalists():
    singles = [(("a", "1"),), (("b", "1"),), (("a", "2"),), (("c", "1"),)]
    made = combine(singles)
    assert arm_name(made[0]) == "a=1 b=1 c=1"
    assert len(made) == len(set(made)) <= 8
    assert all(len(dict(arm)) == len(arm) for arm in made)
    effects = {("a", "1"): -0.2, ("a", "2"): -0.1, ("b", "1"): -0.1, ("c", "1"): 0.5}
    around = [arm_name(arm) for arm in neighbours((("a", "1"), ("b", "1")), effects)]
    assert set(around) == {"a=1", "b=1", "a=2 b=1"}  # c is hopeless alone
    ends = [arm_name(arm) for arm in finalists([made[0], singles[3], singles[2]], effects)]
    # The strongest choice alone, with the next one, and without it.
    assert ends == ["a=1 b=1 c=1", "a=1", "a=1 b=1", "b=1 c=1"]
