"""Comparing two measurements: no alarm on noise, an alarm on a loss, and like only with like."""

import itertools
import json
import random

import pytest
from bench_values import ENVIRONMENT, PARTS, make_case, make_plan, make_sample, store, write_bench
from click.testing import CliRunner

from hpctrain.bench.report.compare import SMALLEST_DIFFERENCE
from hpctrain.bench.report.pairs import judge_ratio
from hpctrain.bench.report.spread import _rank_sum_counts, estimate_ratio
from hpctrain.cli import cli
from hpctrain.errors import BenchError

TRIES = 400


def simulate(factor, noise, repeats, seed=7):
    """Return the interval of each of many comparisons of two noisy measurements."""
    chance = random.Random(seed)

    def measured(rate):
        return [rate * chance.lognormvariate(0, noise) for _ in range(repeats)]

    return [estimate_ratio(measured(factor), measured(1.0)) for _ in range(TRIES)]


@pytest.mark.parametrize("repeats", [3, 5, 8])
@pytest.mark.parametrize("noise", [0.005, 0.03, 0.1])
def test_equal_distributions_raise_no_alarm(noise, repeats):
    """Below 0.95 never, by far; a verdict no more often than the confidence admits."""
    intervals = simulate(1.0, noise, repeats)
    assert sum(interval.high < 0.95 for interval in intervals) <= TRIES * 0.05 / 2
    verdicts = [judge_ratio(interval, SMALLEST_DIFFERENCE) for interval in intervals]
    alarms = TRIES - verdicts.count("no difference seen")
    assert alarms <= TRIES * (1 - intervals[0].confidence) * 1.5


def test_the_usual_noise_never_fails_a_build():
    assert not any(interval.high < 0.95 for interval in simulate(1.0, 0.02, 5))


@pytest.mark.parametrize(("factor", "verdict"), [(0.9, "slower"), (1.1, "faster")])
def test_ten_percent_are_seen_through_the_usual_noise(factor, verdict):
    intervals = simulate(factor, 0.02, 5)
    seen = [judge_ratio(interval, SMALLEST_DIFFERENCE) for interval in intervals]
    assert seen.count(verdict) >= 0.99 * TRIES
    if factor < 1:
        assert sum(interval.high < 0.95 for interval in intervals) >= 0.9 * TRIES


def test_the_interval_holds_the_truth_as_often_as_it_says():
    for repeats in (3, 5, 8):
        intervals = simulate(1.3, 0.1, repeats)
        held = sum(interval.low <= 1.3 <= interval.high for interval in intervals) / TRIES
        assert held >= intervals[0].confidence - 0.03


def test_the_interval_against_every_order():
    """The rank-sum test's own definition, by counting all orders of 3 and 4 values."""
    places = list(itertools.combinations(range(7), 3))
    counts = [0] * 13
    for chosen in places:
        others = [place for place in range(7) if place not in chosen]
        counts[sum(one > other for one in chosen for other in others)] += 1
    assert _rank_sum_counts(3, 4) == counts
    assert estimate_ratio([1.0] * 3, [1.0] * 4).confidence == pytest.approx(1 - 2 / 35)


def test_too_few_repeats_judge_nothing():
    interval = estimate_ratio([1.0, 1.0], [2.0, 2.0, 2.0])
    assert (interval.ratio, interval.low) == (0.5, None)
    assert judge_ratio(interval) == "too few repeats to tell"


CASES = (make_case(1), make_case(2))


def bench(folder, factor=1.0, cases=CASES, repeats=5, noise=0.02, seed=0, **plan):
    chance = random.Random(f"{folder.name}{seed}")
    stored = [
        store(case, make_sample(case, {
            name: value * chance.gauss(1, noise) / factor for name, value in PARTS.items()
        }), k)
        for k in range(repeats)
        for case in cases
    ]  # fmt: skip
    return write_bench(folder, make_plan(cases, repeats, **plan), stored)


def compare(*arguments):
    return CliRunner().invoke(cli, ["bench", "compare", *map(str, arguments)])


def run(*arguments):
    """Return the exit code, as the whole command has it."""
    return cli.main(["bench", "compare", *map(str, arguments)], standalone_mode=False)


def test_a_loss_beyond_the_limit_fails_and_one_within_does_not(tmp_path, capsys):
    a, same, slow = (tmp_path / name for name in ("a", "same", "slow"))
    bench(a), bench(same), bench(slow, factor=0.85)
    assert run(a, same, "--fail-below", 0.95) == 0
    assert "no difference seen" in capsys.readouterr().out
    assert run(a, slow, "--fail-below", 0.95) == 1
    assert "slower, below 0.95" in capsys.readouterr().out
    assert run(a, slow) == 0
    assert run(slow, a, "--fail-below", 0.95) == 0
    assert "faster" in capsys.readouterr().out


def test_a_loss_within_the_noise_does_not_fail(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    bench(a, noise=0.3), bench(b, noise=0.3, factor=0.93)
    assert run(a, b, "--fail-below", 0.95) == 0


def test_json_names_what_failed(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    bench(a), bench(b, factor=0.7)
    record = json.loads(compare(a, b, "--json", "--fail-below", "0.95").output)
    assert record["failed"] == [case.key for case in CASES]
    assert record["cases"][0]["ratio"]["high"] < 0.95
    assert record["cases"][0]["ratio"]["confidence"] > 0.95


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        ({"environment": ENVIRONMENT | {"cpu": "Another"}}, "CPU A CPU <x> and Another"),
        ({"environment": ENVIRONMENT | {"hosts": [{"name": "localhost", "cores": 4}]}}, "hosts"),
        ({"asked": {"config": {"model": {"d_model": 64}}}}, "model.d_model None and 64"),
        ({"asked": {"config": {"train": {"precision": "bf16"}}}}, "train.precision None and bf16"),
        ({"asked": {"options": {"COMMAND": "x.py"}}}, "COMMAND None and x.py"),
    ],
)
def test_unlike_measurements_are_named_and_refused(tmp_path, plan, named):
    a, b = tmp_path / "a", tmp_path / "b"
    bench(a), bench(b, **plan)
    with pytest.raises(BenchError) as refused:
        run(a, b)
    assert named in str(refused.value)
    done = compare(a, b, "--anyway")
    assert done.exit_code == 0
    assert f"compared --anyway: {named}"[:60] in done.output


def test_another_gpu_or_model_is_refused_by_its_samples(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    bench(a)
    case = CASES[0]
    other = [store(case, make_sample(case, device_name="NVIDIA H200", params=5), k) for k in (0, 1)]
    write_bench(b, make_plan(CASES), other)
    with pytest.raises(BenchError) as refused:
        run(a, b)
    assert "device name None and NVIDIA H200" in str(refused.value)
    assert "params 1000000 and 5" in str(refused.value)


def test_versions_settings_that_tune_and_node_names_may_differ(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    hosts = [dict(ENVIRONMENT["hosts"][0], name="other")]
    bench(a)
    bench(b, environment=ENVIRONMENT | {"commit": "def", "hosts": hosts},
          asked={"config": {"comm": {"compression": "fp16"}, "train": {"steps": 9}}})  # fmt: skip
    done = compare(a, b)
    assert done.exit_code == 0, done.output
    assert "changed: commit abc and def; comm.compression None and fp16" in done.output


def test_cases_of_only_one_are_named_and_none_in_common_is_an_error(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    bench(a), bench(b, cases=(CASES[0], make_case(4))), bench(c, cases=(make_case(8),))
    done = compare(a, b)
    assert f"only in A: {CASES[1].key}" in done.output
    assert f"only in B: {make_case(4).key}" in done.output
    with pytest.raises(BenchError, match="no case in common"):
        run(a, c)


def test_few_repeats_are_compared_with_a_warning_but_fail_a_build(tmp_path, capsys):
    a, b = tmp_path / "a", tmp_path / "b"
    bench(a), bench(b, repeats=2, factor=0.5)
    assert run(a, b) == 0
    assert f"not judged: {CASES[0].key}: too few repeats" in capsys.readouterr().err
    assert run(a, b, "--fail-below", 0.95) == 1
    record = json.loads(compare(a, b, "--fail-below", "0.95", "--json").output)
    assert (record["failed"], record["passed"]) == ([], False)
    assert len(record["unjudged"]) == 2


def test_a_case_that_b_lacks_fails_a_build_and_one_that_a_lacks_does_not(tmp_path, capsys):
    a, b = tmp_path / "a", tmp_path / "b"
    bench(a), bench(b, cases=CASES[:1])
    assert run(a, b, "--fail-below", 0.95) == 1
    assert f"not judged: {CASES[1].key}: not measured in B (fails" in capsys.readouterr().err
    assert run(a, b) == 0
    assert run(b, a, "--fail-below", 0.95) == 0


def test_an_unfinished_measurement_fails_a_build(tmp_path, capsys):
    """Three of five repeats would be enough to judge, but not what was asked for."""
    a, b = tmp_path / "a", tmp_path / "b"
    bench(a), bench(b)
    lines = (b / "samples.jsonl").read_text().splitlines(keepends=True)
    (b / "samples.jsonl").write_text("".join(lines[:7]))
    assert run(a, b, "--fail-below", 0.95) == 1
    assert f"{CASES[1].key}: 3 of 5 repeats in B" in capsys.readouterr().err


def test_another_metric_is_another_rate(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    bench(a, asked={"options": {"--metric": "img/s (.*)"}})
    bench(b, asked={"options": {"--metric": "loss (.*)"}})
    with pytest.raises(BenchError) as refused:
        run(a, b)
    assert "--metric img/s (.*) and loss (.*)" in str(refused.value)


def test_work_that_differs_by_rounding_is_the_same(tmp_path):
    a, b, other = (tmp_path / name for name in ("a", "b", "other"))
    for folder, tokens in ((a, 1000.4), (b, 999.8), (other, 1200)):
        case = CASES[0]
        stored = [store(case, make_sample(case, tokens=tokens), k) for k in range(3)]
        write_bench(folder, make_plan((case,)), stored)
    assert run(a, b, "--fail-below", 0.95) == 0
    with pytest.raises(BenchError, match=r"work per step 1000.4 and 1200"):
        run(a, other)
