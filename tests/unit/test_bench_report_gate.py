"""What cannot be true never reaches a report, and the error names the measurement."""

import dataclasses
import math
import random
from pathlib import Path

import pytest
from bench_values import (
    PARTS,
    foreign_sample,
    make_case,
    make_plan,
    make_sample,
    store,
    write_bench,
)

from hpctrain.bench.report.analyse import analyse_bench
from hpctrain.bench.report.gate import check_trials
from hpctrain.bench.report.gate_sizes import _is_over_linear
from hpctrain.bench.report.measured import measure_case
from hpctrain.bench.report.table import say_judgement
from hpctrain.bench.report.write import write_report
from hpctrain.errors import BenchError

ONE, TWO = make_case(1), make_case(2)


def analyse(*stored, cases=(ONE, TWO)):
    return analyse_bench(Path("b"), make_plan(cases), stored, {})


def change_rank(sample, rank, **values):
    changed = dataclasses.replace(sample.ranks[rank], **values)
    ranks = [*sample.ranks]
    ranks[rank] = changed
    return dataclasses.replace(sample, ranks=tuple(ranks))


@pytest.mark.parametrize("step", [0.0, -0.1, math.nan, math.inf])
def test_steps_that_take_no_time(step):
    sample = make_sample(TWO)
    broken = dataclasses.replace(sample, step_time_s=(0.3, step, 0.3))
    with pytest.raises(BenchError, match=r"np2-1node, repeat 1 \(b/runs/weak-fp32-np2-1node-2\)"):
        analyse(store(ONE, make_sample(ONE)), store(TWO, broken, 1))


@pytest.mark.parametrize("value", [-1e-6, math.nan])
def test_parts_that_run_backwards(value):
    broken = change_rank(make_sample(TWO), 1, data_s=(value,) * 8)
    with pytest.raises(BenchError, match="time moves backwards: rank 1, data of timed step 1"):
        analyse(store(TWO, broken))


def test_a_part_of_no_time_is_possible_but_not_all_of_them():
    nothing = dict.fromkeys(PARTS, 0.0)
    analyse(store(ONE, make_sample(ONE, PARTS | {"data": 0.0})))
    with pytest.raises(BenchError, match="rank 0 worked for no time at all"):
        analyse(store(ONE, make_sample(ONE, nothing, other=0.1)))


def test_parts_longer_than_the_step():
    slow = change_rank(make_sample(TWO), 1, backward_s=(0.4,) * 8)
    with pytest.raises(BenchError, match="rank 1 worked longer than the steps took"):
        analyse(store(TWO, slow))


def test_a_rank_that_is_held_up_before_or_after_rank_0_is_timed():
    held_up = change_rank(make_sample(TWO), 1, optimizer_s=(2.0, *(0.01,) * 6, 3.0))
    analyse(store(TWO, held_up))


def test_the_sum_of_parts_may_be_off_by_a_little():
    analyse(store(TWO, change_rank(make_sample(TWO), 1, backward_s=(0.22,) * 8)))


GPU = {
    "device_name": "NVIDIA H200", "peak_flops": 989e12, "precision": "bf16",
}  # fmt: skip


def gpu_sample(case, mfu):
    flops = mfu * 989e12 * case.np * 0.35 / (1000 * case.np)
    return make_sample(case, flops_per_token=flops, **GPU)


def test_an_mfu_over_100_percent():
    case = make_case(1, precision="bf16")
    with pytest.raises(BenchError, match=r"got an MFU of 101 %; expected at most 100 % of 1 x 989"):
        analyse(store(case, gpu_sample(case, 1.01)), cases=[case])


def test_an_mfu_above_the_achievable_rate_warns():
    case = make_case(1, precision="bf16")
    for mfu, warned in ((0.79, False), (0.85, True)):
        report = analyse(store(case, gpu_sample(case, mfu)), cases=[case])
        assert report.sizes[0].mfu == pytest.approx(mfu)
        assert any("MFU 85.0 % is above the 80.3 %" in w for w in report.warnings) is warned


def test_single_steps_over_100_percent():
    """Two of eight steps at 35 times the peak: the typical step forgets them, the gate does not."""
    case = make_case(1, precision="bf16")
    sample = dataclasses.replace(gpu_sample(case, 0.4), ranks=())
    steps = [0.35] * 8
    steps[2] = steps[5] = 0.35 * 0.4 / 35
    with pytest.raises(BenchError, match=r"3500 % in timed step 3, over 100 % in 2 of 8"):
        analyse(store(case, dataclasses.replace(sample, step_time_s=tuple(steps))), cases=[case])


def test_steps_longer_than_their_trial():
    stored = store(ONE, make_sample(ONE))  # 8 steps of 0.35 s
    with pytest.raises(BenchError, match=r"2.8 s of timed steps in 2.7 s with launch"):
        analyse(dataclasses.replace(stored, wall_s=2.7))
    assert analyse(dataclasses.replace(stored, wall_s=2.9)).sizes


def test_lines_for_the_same_trial_are_no_repeats():
    with pytest.raises(BenchError) as refused:
        analyse(*[store(ONE, make_sample(ONE), 0)] * 3)
    assert "weak-fp32-np1-1node, repeat 0 (b/runs/" in str(refused.value)
    assert "3 lines for one trial" in str(refused.value)


def test_a_refusal_says_how_to_measure_the_trial_again():
    broken = dataclasses.replace(make_sample(TWO), step_time_s=(0.0,) * 8)
    with pytest.raises(BenchError, match="--remeasure weak-fp32-np2-1node-1"):
        analyse(store(TWO, broken))
    with pytest.raises(BenchError) as not_kept:
        check_trials(Path("b"), make_plan([TWO]), [store(TWO, broken)])
    assert "--remeasure" not in str(not_kept.value)
    with pytest.raises(BenchError, match="--remeasure weak-fp32-np2-1node,weak-fp32-np1-1node"):
        analyse(*rates(ONE, 0.36, 0.35, 0.37), *rates(TWO, 0.30, 0.31, 0.33))


@pytest.mark.parametrize("step", ["nan", None, 0.0, math.nan])
def test_a_foreign_programs_steps_that_are_no_time(step):
    broken = dataclasses.replace(make_sample(TWO), step_time_s=(0.3, step), ranks=())
    with pytest.raises(BenchError, match="timed step 2 took no time"):
        analyse(store(TWO, broken))


@pytest.mark.parametrize("tokens", [math.nan, -5, "nan"])
def test_tokens_that_are_no_amount(tokens):
    with pytest.raises(BenchError, match="no amount of work"):
        analyse(store(TWO, dataclasses.replace(make_sample(TWO), tokens_per_step=tokens)))


def rates(case, *seconds):
    """Store one repeat for each step time."""
    return [
        store(case, make_sample(case, PARTS | {"backward": s - 0.15}), k)
        for k, s in enumerate(seconds)
    ]


def test_weak_scaling_over_n_beyond_the_spread():
    with pytest.raises(BenchError, match="np2-1node against weak-fp32-np1-1node") as problem:
        analyse(*rates(ONE, 0.36, 0.35, 0.37), *rates(TWO, 0.30, 0.31, 0.33))
    assert "b/runs/weak-fp32-np2-1node-1" in str(problem.value)


def test_weak_scaling_over_n_within_the_spread_is_reported():
    report = analyse(*rates(ONE, 0.36, 0.33, 0.37), *rates(TWO, 0.30, 0.34, 0.33))
    assert report.size(TWO.key).efficiency > 1


@pytest.mark.parametrize("outlier", [0, 2, 4])
def test_one_slow_repeat_hides_no_speedup_over_n(outlier):
    """Four of five steps take 0.6 of the baseline's, one takes a little longer than that."""
    fast = [0.6 * 0.35] * 5
    fast[outlier] = 1.05 * 0.35
    with pytest.raises(BenchError, match="weak scaling over n"):
        analyse(*rates(ONE, 0.35, 0.351, 0.349, 0.35, 0.352), *rates(TWO, *fast))


def test_one_fast_repeat_of_the_baseline_hides_none_either():
    with pytest.raises(BenchError, match="weak scaling over n"):
        analyse(*rates(ONE, 0.35, 0.351, 0.2, 0.35, 0.352), *rates(TWO, *[0.25] * 5))


@pytest.mark.parametrize(("noise", "at_most"), [(0.01, 0), (0.03, 10), (0.1, 10)])
def test_equal_sizes_are_hardly_ever_refused(noise, at_most):
    """Of a thousand, five repeats each: an alarm costs a whole measurement."""
    chance = random.Random(3)
    pairs = [
        [_measured(c, [chance.lognormvariate(0, noise) for _ in range(5)]) for c in (TWO, ONE)]
        for _ in range(1000)
    ]
    assert sum(_is_over_linear(*pair) for pair in pairs) <= at_most


def _measured(case, rates):
    stored = [
        store(case, foreign_sample(case.np), k, metric=(rate * case.np,))
        for k, rate in enumerate(rates)
    ]
    return measure_case(case, stored)


def test_weak_scaling_over_n_is_always_marked():
    report = analyse(*rates(ONE, 0.36, 0.33, 0.37), *rates(TWO, 0.30, 0.34, 0.33))
    size = report.size(TWO.key)
    assert "9.1 % more a rank than the baseline" in size.superlinear
    assert "over linear" in say_judgement(size)
    assert "no loss seen" in " ".join(report.findings)


@pytest.mark.parametrize(
    ("mode", "tokens", "said"),
    [
        ("strong", 20_000, "got 20,000 tokens in a step of all ranks; expected 1,000"),
        ("weak", 1000, "got 500 tokens in a step a rank; expected 1,000"),
    ],
)
def test_unequal_work_is_no_efficiency(mode, tokens, said):
    one, two = make_case(1, mode), make_case(2, mode)
    with pytest.raises(BenchError) as refused:
        analyse(
            store(one, make_sample(one)), store(two, make_sample(two, tokens=tokens)),
            cases=[one, two],
        )  # fmt: skip
    assert f"{two.key}: another work than {one.key} has, {said}" in str(refused.value)
    rounded = store(two, make_sample(two, tokens=1.01 * (1000 if mode == "strong" else 2000)))
    assert analyse(store(one, make_sample(one)), rounded, cases=[one, two]).size(two.key)


def test_one_repeat_is_held_against_what_its_steps_differ_by():
    steps = {"steady": (0.30,) * 8, "noisy": (0.25, 0.3, 0.3, 0.3, 0.3, 0.4, 0.4, 0.4)}
    one = dataclasses.replace(make_sample(ONE, steps=8), step_time_s=(0.35,) * 8)
    for name, times in steps.items():
        two = dataclasses.replace(make_sample(TWO, steps=8), step_time_s=times, ranks=())
        stored = store(ONE, dataclasses.replace(one, ranks=())), store(TWO, two)
        if name == "steady":
            with pytest.raises(BenchError, match="weak scaling over n"):
                analyse(*stored)
        else:
            assert analyse(*stored).size(TWO.key).efficiency > 1.02


def test_strong_scaling_over_n_is_marked_and_explained():
    one, two = make_case(1, "strong"), make_case(2, "strong")
    half = {name: 0.4 * value for name, value in PARTS.items()}
    report = analyse(
        store(one, make_sample(one)), store(two, make_sample(two, half)), cases=[one, two]
    )
    assert report.size(two.key).efficiency == pytest.approx(1.25)
    assert "caches" in report.size(two.key).superlinear
    assert any("caches" in finding for finding in report.findings)


@pytest.mark.parametrize("metric", [(), (0.0,), (-3.0,), (math.nan,)])
def test_metrics_that_are_no_rate(metric):
    with pytest.raises(BenchError, match=r"nothing was measured|is no rate"):
        analyse(store(TWO, foreign_sample(2), metric=metric))


def test_another_size_or_precision_than_planned():
    with pytest.raises(BenchError, match="got 1 ranks; expected 2") as problem:
        analyse(store(TWO, make_sample(ONE)), store(ONE, make_sample(ONE, precision="bf16")))
    assert "another precision was measured, got bf16; expected fp32" in str(problem.value)


def test_nothing_measured_at_all():
    with pytest.raises(BenchError, match="nothing measured yet"):
        analyse()


def test_no_file_of_an_implausible_report_is_left(tmp_path):
    good = [store(ONE, make_sample(ONE), k) for k in range(3)]
    folder = write_bench(tmp_path, make_plan([ONE]), good)
    write_report(folder)
    assert {path.name for path in folder.glob("report.*")} == {
        "report.json", "report.md", "report.html"
    }  # fmt: skip
    broken = dataclasses.replace(make_sample(ONE), step_time_s=(-1.0,))
    write_bench(tmp_path, make_plan([ONE]), [*good, store(ONE, broken, 3)])
    with pytest.raises(BenchError):
        write_report(folder)
    assert list(folder.glob("report.*")) == []
