"""What a scaling measurement consists of: placements, batches, order, and what is refused."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.bench.scaling.asked import BenchAsked, option_problems, parse_sizes
from hpctrain.bench.scaling.cases import plan_from_json
from hpctrain.bench.scaling.placements import Room, default_sizes, plan_placements
from hpctrain.bench.scaling.plan import Wanted, allreduce_placements, plan_cases, plan_order
from hpctrain.bench.scaling.request import plan_bench
from hpctrain.bench.scaling.timing import Calibration, estimate_trial_s, remaining_s
from hpctrain.config import parse_config
from hpctrain.config.schema import TrainConfig
from hpctrain.errors import ConfigError, PlanError
from hpctrain.launch.prepare import Asked


def rooms(*slots, limit=None, cores=8):
    names = "abcdefgh"
    return tuple(
        Room(name=names[i], slots=n, limit=limit or n, cores=cores) for i, n in enumerate(slots)
    )


@pytest.mark.parametrize(
    ("np", "slots", "expected"),
    [
        (1, (4, 4), ["a1"]),
        (2, (4, 4), ["a2", "a1 b1"]),
        (4, (4, 4), ["a4", "a2 b2"]),
        (3, (4, 4), ["a3"]),  # cannot be spread evenly
        (3, (4, 4, 4), ["a3", "a1 b1 c1"]),
        (8, (4, 4), ["a4 b4"]),
        (6, (4, 4), ["a4 b2"]),  # as `hpctrain run` fills them
        (4, (8, 8, 8, 8), ["a4", "a2 b2"]),  # the fewest nodes, not all
        (4, (2, 4, 2), ["b4", "a2 b2"]),  # one node, if any has the slots
        (4, (4, 1), ["a4"]),
        (4, (4,), ["a4"]),
    ],
)
def test_placements(np, slots, expected):
    found = plan_placements(np, rooms(*slots))
    assert [" ".join(f"{name}{ranks}" for name, ranks in placed) for placed in found] == expected


def test_more_ranks_than_slots_are_shared_out_up_to_the_limit():
    assert plan_placements(7, rooms(2, 2, limit=4)) == ((("a", 4), ("b", 3)),)
    assert plan_placements(9, rooms(2, 2, limit=4)) == ()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.data())
def test_placements_are_possible_and_differ(slots, data):
    there = rooms(*slots)
    np = data.draw(st.integers(1, sum(slots)))
    found = plan_placements(np, there)
    free = {room.name: room.slots for room in there}
    for placed in found:
        assert sum(ranks for _, ranks in placed) == np
        assert all(1 <= ranks <= free[name] for name, ranks in placed)
    nodes = [len(placed) for placed in found]
    assert nodes == sorted(set(nodes))
    assert len(nodes) == 1 or nodes[0] == 1


def test_default_sizes_end_with_all_slots():
    assert default_sizes(rooms(1)) == (1,)
    assert default_sizes(rooms(2)) == (1, 2)
    assert default_sizes(rooms(4, 4, 4)) == (1, 2, 4, 8, 12)


def test_cases_of_two_modes_and_precisions():
    wanted = Wanted(
        sizes=(1, 4), modes=("weak", "strong"), precisions=("fp32", "bf16"), is_local=False
    )
    cases = plan_cases(wanted, TrainConfig(batch_size_per_rank=6), rooms(4, 4))
    assert [case.key for case in cases] == [
        "weak-fp32-np1-1node", "strong-fp32-np1-1node",
        "weak-bf16-np1-1node", "strong-bf16-np1-1node",
        "weak-fp32-np4-1node", "strong-fp32-np4-1node",
        "weak-bf16-np4-1node", "strong-bf16-np4-1node",
        "weak-fp32-np4-2nodes", "strong-fp32-np4-2nodes",
        "weak-bf16-np4-2nodes", "strong-bf16-np4-2nodes",
    ]  # fmt: skip
    by_key = {case.key: case for case in cases}
    assert by_key["weak-bf16-np4-2nodes"].overrides == (
        "train.batch_size_per_rank=6", "train.precision=bf16",
    )  # fmt: skip
    # The batch of the smallest size: the baseline of both modes is the same training.
    assert by_key["strong-fp32-np4-1node"].overrides[0] == "train.global_batch_size=6"
    assert by_key["weak-bf16-np4-2nodes"].hosts == (("a", 2), ("b", 2))
    assert list(allreduce_placements(cases)) == ["np4-1node", "np4-2nodes"]


@pytest.mark.parametrize(
    ("train", "sizes", "weak", "strong"),
    [
        (TrainConfig(), (1, 2), 8, 8),
        (TrainConfig(), (2, 4), 8, 16),
        (TrainConfig(global_batch_size=12), (2, 4), 6, 12),
        (TrainConfig(batch_size_per_rank=3), (1, 2), 3, 3),
    ],
)
def test_batches(train, sizes, weak, strong):
    cases = plan_cases(Wanted(sizes=sizes, modes=("weak", "strong")), train, rooms(4))
    found = {override for case in cases for override in case.overrides}
    assert found == {
        f"train.batch_size_per_rank={weak}", f"train.global_batch_size={strong}",
        "train.precision=fp32",
    }  # fmt: skip


def test_all_that_is_wrong_is_said_at_once():
    wanted = Wanted(sizes=(2, 8, 9), modes=("weak", "strong"))
    with pytest.raises(PlanError) as wrong:
        plan_cases(wanted, TrainConfig(global_batch_size=5), rooms(2, 2))
    text = str(wrong.value)
    assert "--np: more ranks than slots, got 8; expected at most 4 (a:2, b:2)" in text
    assert "got 9; expected at most 4" in text
    assert "fewer sequences than ranks, got a global batch of 5 for np 8" in text
    assert "cannot share the batch evenly, got train.global_batch_size = 5 for np 2" in text


def test_a_command_has_only_sizes_and_placements():
    wanted = Wanted(sizes=(1, 2), is_trainer=False, is_local=False)
    cases = plan_cases(wanted, TrainConfig(), rooms(2, 2))
    assert [case.key for case in cases] == ["weak-np1-1node", "weak-np2-1node", "weak-np2-2nodes"]
    assert {(case.precision, case.overrides) for case in cases} == {(None, ())}


def test_repeats_are_interleaved_and_go_on_where_they_stopped():
    cases = plan_cases(Wanted(sizes=(1, 2, 4)), TrainConfig(), rooms(4))
    order = plan_order(cases, 2, ())
    assert [(case.np, repeat) for case, repeat in order] == [
        (1, 0), (2, 0), (4, 0), (1, 1), (2, 1), (4, 1),
    ]  # fmt: skip

    @dataclasses.dataclass
    class Done:
        case: str
        repeat: int

    done = [Done(case.key, repeat) for case, repeat in order[:4]]
    assert plan_order(cases, 2, done) == order[4:]
    assert plan_order(cases, 2, done[1:]) == (order[0], *order[4:])


def make_plan(*overrides, rooms_=None, **asked):
    config = parse_config("", overrides=overrides)
    return plan_bench(
        BenchAsked(run=Asked(), sizes=(1, 2), **asked), config, rooms_ or rooms(2),
        is_local=True, environment={"cpu": "x"}, price=None,
    )  # fmt: skip


def test_the_shared_configuration_leaves_each_case_its_own():
    plan, config, _ = make_plan(
        "train.global_batch_size=8", "train.tokens=1000000", "launch.np=7", "train.seed=3",
        warmup_steps=2, timed_steps=4,
    )  # fmt: skip
    assert (config.train.steps, config.train.tokens) == (6, None)
    assert config.train.global_batch_size is None
    assert config.launch.np is None
    assert config.train.seed == 3
    assert plan.asked["config"]["train"]["global_batch_size"] == 8
    assert plan_from_json(json.loads(json.dumps(plan.as_json()))) == plan


def test_no_case_takes_the_runs_spares_or_is_started_again():
    _, config, _ = make_plan("launch.spares=1", "launch.min_np=1", "launch.max_restarts=5")
    launch = config.launch
    assert (launch.spares, launch.min_np, launch.max_restarts) == (0, None, 0)


def test_every_rank_has_the_same_threads_in_every_case():
    _, config, notes = make_plan(rooms_=rooms(2, cores=16))
    assert config.launch.threads_per_rank == 8
    assert "the same in every case" in notes[0]
    _, config, _ = make_plan("launch.threads_per_rank=3", rooms_=rooms(2, cores=16))
    assert config.launch.threads_per_rank == 3
    _, config, notes = make_plan(rooms_=rooms(2, cores=None))
    assert config.launch.threads_per_rank is None
    assert "--probe" in notes[0]


@pytest.mark.parametrize("text", ["", "0", "1,,2", "a", "-1", "1.5", "²"])
def test_sizes_that_are_none(text):
    with pytest.raises(ConfigError, match="--np: no numbers of ranks"):
        parse_sizes(text)


def test_options_that_do_not_go_together():
    with_command = BenchAsked(
        run=Asked(program=("x",)), precisions=("fp32", "fp99"), mode="both", timed_steps=3
    )
    found = "\n".join(option_problems(with_command))
    for word in ("--precision: unknown value, got 'fp99'", "--precision: is for", "--steps: is",
                 "--mode both: is for"):  # fmt: skip
        assert word in found
    assert "expected -- COMMAND" in "".join(option_problems(BenchAsked(run=Asked(), metric="(x)")))
    assert not list(option_problems(BenchAsked(run=Asked(), mode="both", precisions=("bf16",))))


def test_an_estimate_knows_better_once_something_is_measured():
    ends = [Calibration(np=1, base_s=3.0, step_s=0.5), Calibration(np=4, base_s=6.0, step_s=1.0)]
    assert estimate_trial_s(1, 10, ends) == pytest.approx(8.0)
    assert estimate_trial_s(4, 10, ends) == pytest.approx(16.0)
    assert estimate_trial_s(2, 0, ends) == pytest.approx(4.0)
    assert estimate_trial_s(9, 10, ends[:1]) == pytest.approx(8.0)
    left = ["one", "one", "two"]
    assert remaining_s(left, {}, {"one": 8.0, "two": 16.0}) == pytest.approx(32.0)
    measured = {"one": [9.0, 10.0, 30.0]}
    assert remaining_s(left, measured, {"one": 8.0, "two": 16.0}) == pytest.approx(36.0)
