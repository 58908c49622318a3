"""Judgements on spread, side-by-side pairs, forecasts, and what the findings say."""

import re
from pathlib import Path

import pytest
from bench_values import (
    ENVIRONMENT,
    PARTS,
    foreign_sample,
    make_allreduce,
    make_case,
    make_plan,
    make_sample,
    store,
)

from hpctrain.bench.report.analyse import analyse_bench
from hpctrain.bench.report.models import SizeModel
from hpctrain.bench.report.remedies import find_link_need, find_what_ifs
from hpctrain.bench.report.wire import ExchangeSettings
from hpctrain.scaling_model.links import Link
from hpctrain.scaling_model.predict import predict_step
from hpctrain.scaling_model.step import StepModel, plan_bucket_models
from hpctrain.scaling_model.topology import Topology

NODES = [{"name": f"n{node}", "slots": 4, "cores": 4, "gpus": None} for node in range(2)]
TWO_NODES = ENVIRONMENT | {"hosts": NODES}


def repeat(case, parts=PARTS, times=3, **more):
    """Store `times` repeats that differ by a hundredth."""
    return [
        store(case, make_sample(case, _scaled(parts, 1 + k / 100), **more), k) for k in range(times)
    ]


def _scaled(parts, factor):
    if isinstance(parts, list):
        return [_scaled(each, factor) for each in parts]
    return {name: factor * value for name, value in parts.items()}


def analyse(stored, cases, allreduces=None, **plan):
    return analyse_bench(Path("b"), make_plan(cases, **plan), stored, allreduces or {})


def test_a_wide_spread_and_few_repeats_say_nothing():
    one, two, four = make_case(1), make_case(2), make_case(4)
    wide = [
        store(two, make_sample(two, _scaled(PARTS, factor)), k)
        for k, factor in enumerate((1.0, 1.5, 2.0))
    ]
    cases = [one, two, four]
    report = analyse([*repeat(one), *wide, *repeat(four, times=2)], cases)
    assert report.size(one.key).inconclusive is None
    assert "more than 10 %" in report.size(two.key).inconclusive
    assert report.size(four.key).inconclusive == "2 repeats: too few to tell a spread"
    words = " ".join(report.findings)
    assert f"Conclude nothing from {two.key}" in words
    assert "not finished: 1 of 9 trials" in report.warnings[0]


def test_baseline_and_precision_stand_beside_every_ratio():
    one, two = make_case(1), make_case(2)
    report = analyse([*repeat(one), *repeat(two, PARTS | {"exposed_comm": 0.15})], [one, two])
    first = report.findings[0]
    assert first.startswith("Weak scaling, fp32, 2 ranks: 70 % efficiency")
    assert "against 2,829 of 1 rank" in first
    assert "Of 100 points 30 are missing: 30 exposed all-reduce." in first
    # Without all-reduces nothing is known of the link but what it would have to give.
    assert "what it gets is not known: no all-reduce was measured at np2-1node" in first
    assert report.size(two.key).baseline == one.key


def test_a_foreign_metric_alone_makes_a_report():
    one, two = make_case(1, precision=None), make_case(2, precision=None)
    stored = [
        store(case, foreign_sample(case.np), k, metric=(rate + k,))
        for case, rate in ((one, 100.0), (two, 180.0))
        for k in range(3)
    ]
    report = analyse(stored, [one, two])
    size = report.size(two.key)
    assert (size.unit, size.step_s, size.parts_s, size.mfu) == ("metric", None, None, None)
    assert size.efficiency == pytest.approx(181 / 2 / 101)
    assert size.forecast.kind == "none"
    assert any("no parts of the step are known" in warning for warning in report.warnings)


def test_what_a_million_tokens_cost():
    """Of two paid nodes a case on one costs half an hour's price."""
    one, two = make_case(1), make_case(2, nodes=2)
    price = {"value": 7.2, "what": "2 nodes", "as_of": "2026-01"}
    report = analyse(
        [*repeat(one, times=1), *repeat(two, times=1)], [one, two], usd_per_hour=price,
        environment=TWO_NODES,
    )  # fmt: skip
    rate = 1000 / 0.35
    assert report.size(one.key).usd_per_million_tokens == pytest.approx(3.6 / 3600 * 1e6 / rate)
    assert report.size(two.key).usd_per_million_tokens == pytest.approx(3.6 / 3600 * 1e6 / rate)
    assert ("price", "$7.2 an hour: 2 nodes, as of 2026-01") in report.conditions


def test_precisions_and_placements_side_by_side():
    cases = [make_case(2), make_case(2, nodes=2), make_case(2, precision="bf16")]
    packed, spread, bf16 = cases
    stored = [
        *repeat(packed, losses=(5.0, 4.0)),
        *repeat(spread, _scaled(PARTS, 2.0)),
        *repeat(bf16, _scaled(PARTS, 0.5), losses=(5.0, 4.02)),
    ]
    report = analyse(stored, cases)
    (precision,) = report.precisions
    assert (precision.key, precision.baseline) == (bf16.key, packed.key)
    assert precision.ratio.median == pytest.approx(2.0)
    assert precision.interval.low == pytest.approx(2 / 1.02)
    assert (precision.verdict, precision.loss_noise) == ("faster", 0.0)
    assert precision.loss_difference == pytest.approx(0.005)
    (placement,) = report.placements
    assert placement.ratio.median == pytest.approx(0.5)
    words = " ".join(report.findings)
    assert "bf16 over fp32 is 2.00 times as fast" in words
    assert "2 ranks on 2 nodes run at 50 % of their rate on 1" in words


def test_steps_without_a_loss_shift_no_other():
    """A loss that a program could not tell stands as None in its place."""
    base, bf16 = make_case(2), make_case(2, precision="bf16")
    stored = [
        *repeat(base, losses=(5.0, None, 4.0, 3.0)), *repeat(bf16, losses=(5.0, 9.0, None, 3.03))
    ]  # fmt: skip
    (precision,) = analyse(stored, [base, bf16]).precisions
    assert precision.loss_difference == pytest.approx(0.01)
    assert precision.loss_noise == 0.0
    silent = [*repeat(base, losses=(None, None)), *repeat(bf16, losses=())]
    assert analyse(silent, [base, bf16]).precisions[0].loss_difference is None


def exposed_bench(np=2, exposed=0.25):
    """One rank, and two on two nodes over a link of 0.02 GB/s."""
    one, many = make_case(1), make_case(np, nodes=2)
    stored = [*repeat(one), *repeat(many, PARTS | {"exposed_comm": exposed})]
    allreduces = {many.placement: make_allreduce(np, 2, 1e-4, 2e7)}
    return stored, [one, many], allreduces


def test_a_forecast_stands_beside_what_was_measured_and_never_beside_its_source():
    stored, cases, allreduces = exposed_bench()
    report = analyse(stored, cases, allreduces, environment=TWO_NODES)
    one, two = (report.size(case.key) for case in cases)
    assert (one.forecast.kind, one.forecast.step_s) == ("calibration", None)
    # One bucket of 4 MB leaves when backward ends: 4 MB over 20 MB/s are 0.2 s, all of it exposed.
    assert two.forecast.kind == "predicted"
    assert two.forecast.step_s == pytest.approx(1.01 * 0.35 + 0.2, rel=0.03)
    assert two.forecast.error == pytest.approx(two.forecast.step_s / two.step_s - 1)
    assert two.forecast.low_s < two.forecast.step_s < two.forecast.high_s
    assert cases[0].key in two.forecast.why
    assert cases[1].key not in two.forecast.why


def test_two_ranks_calibrate_only_what_is_placed_like_them():
    """Over a network an exchange slows computing otherwise than within a machine."""
    one, packed, spread, four = make_case(1), make_case(2), make_case(2, nodes=2), make_case(4)
    slow = PARTS | {"backward": 2.0}
    stored = [*repeat(one), *repeat(packed), *repeat(spread, slow), *repeat(four)]
    allreduces = {case.placement: make_allreduce(case.np, case.nodes) for case in (packed, four)}
    report = analyse(stored, [one, packed, spread, four], allreduces)
    first, larger = (report.size(case.key).forecast for case in (packed, four))
    assert (first.kind, larger.kind) == ("predicted", "predicted")
    assert first.why.startswith(f"from {one.key}, and")
    assert larger.why.startswith(f"from {one.key} and {packed.key}, and")
    assert first.step_s < 0.5


def test_a_loss_far_beyond_a_wide_spread_is_still_explained():
    one, two = make_case(1), make_case(2)
    wide = [
        store(two, make_sample(two, PARTS | {"exposed_comm": seconds}), k)
        for k, seconds in enumerate((3.0, 4.0, 5.0))
    ]
    words = analyse([*repeat(one), *wide], [one, two]).findings[0]
    assert "but the loss is far larger" in words
    assert "92 exposed all-reduce" in words
    last = analyse([*repeat(one), *wide], [one, two]).findings[-1]
    assert f"Take only as rough {two.key}" in last
    assert "Conclude nothing" not in last


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("exposed", [0.0, 3.0])
def test_few_repeats_say_nothing_however_large_the_loss(times, exposed):
    one, two = make_case(1), make_case(2)
    stored = [*repeat(one, times=times), *repeat(two, PARTS | {"exposed_comm": exposed}, times)]
    report = analyse(stored, [one, two], repeats=times)
    first, words = report.findings[0], " ".join(report.findings)
    assert f"in {times} repeat" in first
    assert "Nothing can be concluded from that" in first
    assert f"Conclude nothing from {one.key} and {two.key}" in words
    for claim in ("far larger", "Of 100 points", "quartiles"):
        assert claim not in words


def test_a_wide_baseline_makes_what_stands_on_it_inconclusive():
    """The size itself is steady; against which of the baseline's repeats it lost, nobody knows."""
    one, two = make_case(1), make_case(2)
    wide = [
        store(one, make_sample(one, _scaled(PARTS, factor)), k)
        for k, factor in enumerate((0.4, 1.0, 1.8))
    ]
    report = analyse([*wide, *repeat(two, PARTS | {"exposed_comm": 0.1})], [one, two])
    size = report.size(two.key)
    assert size.inconclusive.startswith(f"its baseline is inconclusive ({one.key}: the quartiles")
    assert "Nothing can be concluded from that: its baseline" in report.findings[0]
    assert "Of 100 points" not in report.findings[0]


def test_a_link_that_cannot_hide_latency_is_not_called_enough():
    """A message takes 150 ms however short it is: more bandwidth changes nothing."""
    one, two = make_case(1), make_case(2, nodes=2)
    stored = [*repeat(one), *repeat(two, PARTS | {"exposed_comm": 0.31})]
    allreduces = {two.placement: make_allreduce(2, 2, 0.15, 1e9)}
    words = analyse(stored, [one, two], allreduces, environment=TWO_NODES).findings[0]
    assert re.search(r"and more would not help: \d+ % of the step is exposed latency", words)
    assert "enough to hide" not in words


def test_in_strong_scaling_the_model_gets_the_share_of_the_work():
    one, four = make_case(1, "strong"), make_case(4, "strong", nodes=2)
    quarter = {name: value / 4 for name, value in PARTS.items()}
    stored = [*repeat(one), *repeat(four, quarter | {"exposed_comm": 0.3, "optimizer": 0.04})]
    allreduces = {four.placement: make_allreduce(4, 2, 1e-4, 2e7)}
    report = analyse(stored, [one, four], allreduces, environment=TWO_NODES)
    # 0.31 s of data, forward and backward shared by four, 0.04 s of optimizer not; 6 MB at 20 MB/s.
    expected = 1.01 * (0.31 / 4 + 0.04) + 0.3
    assert report.size(four.key).forecast.step_s == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("measured", "config", "why"),
    [
        ((1, 2), {}, "no all-reduce was measured at np2-2nodes"),
        ((2,), {}, "no run of one rank to calibrate from"),
        ((1, 2), {"optim": {"sharded": True}}, "not a sharded or missing exchange"),
    ],
)
def test_without_a_calibration_it_says_why(measured, config, why):
    cases = [make_case(np, nodes=np) for np in (1, 2)]
    stored = [each for case in cases if case.np in measured for each in repeat(case)]
    report = analyse(stored, cases, environment=TWO_NODES, asked={"config": config})
    forecast = report.size(cases[1].key).forecast
    assert (forecast.kind, forecast.step_s) == ("none", None)
    assert why in forecast.why


def test_ranks_that_share_cores_are_beyond_the_model_and_named():
    one, four = make_case(1), make_case(4)
    hosts = [{"name": "localhost", "slots": 2, "cores": 2, "gpus": None}]
    slow = PARTS | {"forward": 0.2, "backward": 0.4}
    report = analyse(
        [*repeat(one), *repeat(four, slow)], [one, four], {"np4-1node": make_allreduce(4)},
        environment=ENVIRONMENT | {"hosts": hosts},
    )  # fmt: skip
    assert "4 ranks share 2 cores" in report.size(four.key).forecast.why
    assert (
        "takes 100 % longer than in the baseline: 4 ranks take turns on 2 cores"
        in (report.findings[0])
    )


def test_findings_name_the_link_and_what_would_help():
    stored, cases, allreduces = exposed_bench()
    report = analyse(stored, cases, allreduces, environment=TWO_NODES)
    words = report.findings[0]
    assert "Of 100 points 42 are missing: 42 exposed all-reduce" in words
    assert "The link gives 0.02 GB/s where this model needs" in words
    assert "accumulating 4 steps" in words
    assert "fp16 compression (comm.compression)" in words
    assert "By the scaling model, which is -8 % off here, beyond its error band, " in words
    assert f"The scaling model predicts the step of {cases[1].key}, " in report.findings[1]


SLOW_RANK = PARTS | {"forward": 0.13, "backward": 0.26}
"""Of two ranks, one that computes 30 % slower than PARTS; the other waits for it."""


def straggling_bench(link_bytes_per_s=2e7):
    """Two nodes; the exchange is all hidden, and the loss is that of one slow rank."""
    one, two = make_case(1), make_case(2, nodes=2)
    waits = PARTS | {"exposed_comm": 0.09}
    stored = [*repeat(one), *repeat(two, [waits, SLOW_RANK])]
    allreduces = {two.placement: make_allreduce(2, 2, 1e-4, link_bytes_per_s)}
    return analyse(stored, [one, two], allreduces, environment=TWO_NODES), two


def test_nothing_is_proposed_against_an_exchange_that_costs_nothing():
    """Neither where the model is far off (0.2 s of exchange on the link), nor where it is not."""
    for link_bytes_per_s, is_exposed in ((2e7, True), (1e9, False)):
        report, two = straggling_bench(link_bytes_per_s)
        size = report.size(two.key)
        assert size.lost_points["exchange"] == pytest.approx(0, abs=1e-9)
        assert (size.forecast.error > 0.1) is is_exposed
        assert "would lift it" not in report.findings[0]


def test_a_stragglers_slow_computing_is_blamed_on_nothing_else():
    report, _ = straggling_bench()
    words = report.findings[0]
    assert "Rank 1 on n1 is up to 26 % slower than the others, mostly in backward." in words
    assert (
        "Computing takes 15 % longer than in the baseline, as a mean of all ranks: that is "
        "rank 1 on n1; the others compute hardly slower than there." in words
    )
    assert "threads" not in words


def test_what_slows_all_ranks_is_told_from_what_slows_one():
    """All compute 20 % longer, and one of them 50 %: the mean is 27.5 %."""
    one, four = make_case(1), make_case(4, nodes=4)
    slower = PARTS | {"forward": 0.12, "backward": 0.24, "exposed_comm": 0.09}
    slowest = PARTS | {"forward": 0.15, "backward": 0.3}
    own = [slower, slower, slower, slowest]
    words = analyse([*repeat(one), *repeat(four, own)], [one, four]).findings[0]
    assert "% longer than in the baseline, as a mean of all ranks, and 20 % longer" in words
    assert "without rank 3 on n3: the exchange, with its threads, runs on" in words


def test_several_stragglers_are_all_named():
    one, eight = make_case(1), make_case(8, nodes=4)
    waits = PARTS | {"exposed_comm": 0.25}
    slow = PARTS | {"backward": 0.45}
    for ranks, said in (
        ((6, 7), "Ranks 6 and 7 on n3 are up to 71 %"),
        ((1, 6), "Rank 1 on n0 and rank 6 on n3 are up to 71 %"),
    ):
        own = [slow if rank in ranks else waits for rank in range(8)]
        assert said in analyse([*repeat(one), *repeat(eight, own)], [one, eight]).findings[0]


def test_no_remedy_gains_more_than_the_exchange_took():
    """The model has 0.2 s exposed, the measurement 0.03 s; the rest is forward's."""
    one, two = make_case(1), make_case(2, nodes=2)
    parts = PARTS | {"forward": 0.25, "exposed_comm": 0.03}
    allreduces = {two.placement: make_allreduce(2, 2, 1e-4, 2e7)}
    report = analyse([*repeat(one), *repeat(two, parts)], [one, two], allreduces,
                     environment=TWO_NODES)  # fmt: skip
    words, size = report.findings[0], report.size(two.key)
    most = 0.35 / (size.step_s / 1.01 - 0.03)
    proposed = [int(percent) for percent in re.findall(r"to about (\d+) %", words)]
    assert proposed
    assert max(proposed) == round(100 * most)
    assert size.lost_points["exchange"] == pytest.approx(5.6, abs=0.1)


def test_a_model_that_is_far_off_is_not_asked():
    stored, cases, allreduces = exposed_bench(exposed=0.5)
    words = analyse(stored, cases, allreduces, environment=TWO_NODES).findings[0]
    assert "would lift it" not in words
    assert "this model needs" not in words
    assert "The link gives 0.02 GB/s for buckets like these." in words
    assert "% off here, beyond its error band: so it is not asked what would lift that." in words


def test_a_straggler_is_named_in_the_findings():
    one, four = make_case(1), make_case(4, nodes=2)
    waits = PARTS | {"exposed_comm": 0.25}
    slow = PARTS | {"backward": 0.45}
    report = analyse([*repeat(one), *repeat(four, [waits, waits, waits, slow])], [one, four])
    (straggler,) = report.size(four.key).stragglers
    assert (straggler.rank, straggler.host) == (3, "n1")
    assert (
        "Rank 3 on n1 is up to 71 % slower than the others, mostly in backward."
        in (report.findings[0])
    )


def model(buckets=4, bandwidth=2e7):
    link = Link(1e-5, bandwidth)
    step = StepModel(0.0, 0.1, 0.2, 0.05, plan_bucket_models(4e6, 4e6 / buckets))
    return SizeModel(step=step, topology=Topology(2, 1, link, link, "ring"), link=link, why="")


def test_the_bandwidth_that_is_needed_is_enough_and_no_more():
    """Of four buckets the last leaves with backward's end: 1 MB must pass in 2 % of the step."""
    need = find_link_need(model())
    assert need.gives_gb_per_s == pytest.approx(0.02, rel=1e-3)
    assert need.needs_gb_per_s == pytest.approx(1e6 / (0.02 * 0.357) / 1e9, rel=0.05)
    assert need.left < 0.01
    assert find_link_need(model(bandwidth=1e9)).needs_gb_per_s < 1.0


def test_what_ifs_are_the_models_ratios_on_what_was_measured():
    exposed = model()
    now = predict_step(exposed.step, exposed.topology).efficiency
    found = find_what_ifs(now, exposed, ExchangeSettings(), over_network=True)
    assert [what.words.split(" (")[0] for what in found] == [
        "accumulating 4 steps", "fp16 compression"
    ]  # fmt: skip
    # 4 MB at 20 MB/s against 0.15 s of backward that is left when the first bucket is full.
    assert now == pytest.approx(0.35 / 0.4, rel=0.01)
    assert found[1].efficiency == pytest.approx(0.35 / 0.375, rel=0.01)
    assert found[0].efficiency == pytest.approx(1.25 / 1.3, rel=0.01)
    compressed = ExchangeSettings(compression="fp16")
    assert len(find_what_ifs(now, exposed, compressed, over_network=True)) == 1
    assert len(find_what_ifs(now, exposed, ExchangeSettings(), over_network=False)) == 1
    (smaller,) = [
        what
        for what in find_what_ifs(0.5, model(buckets=1), ExchangeSettings(), over_network=False)
        if "smaller buckets" in what.words
    ]
    assert smaller.efficiency > 0.5
