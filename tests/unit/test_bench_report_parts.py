"""Parts that add up, the loss shared out among them, straggling ranks, and what a step sends."""

import dataclasses
import math

import pytest
from bench_values import PARTS, foreign_sample, make_case, make_sample, store
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.bench.report import lost, parts
from hpctrain.bench.report.measured import METRIC, measure_case
from hpctrain.bench.report.stragglers import find_stragglers
from hpctrain.bench.report.wire import ExchangeSettings, wire_bytes

seconds = st.floats(min_value=0.0, max_value=10.0)
one_rank = st.fixed_dictionaries(dict.fromkeys(PARTS, seconds))


def measure(case, *samples):
    return measure_case(case, [store(case, sample, k) for k, sample in enumerate(samples)])


def test_waiting_is_what_a_rank_waits_beyond_the_least_of_all():
    fast = PARTS | {"backward": 0.1, "exposed_comm": 0.15}
    slow = PARTS | {"backward": 0.2, "exposed_comm": 0.05}
    split = parts.split_step(make_sample(make_case(2), [fast, slow], other=0.01))
    assert split.parts_s == pytest.approx(
        {"data": 0.01, "forward": 0.1, "backward": 0.15, "exchange": 0.05, "waiting": 0.05,
         "optimizer": 0.04, "other": 0.01}
    )  # fmt: skip
    assert split.step_s == pytest.approx(0.41)


def test_a_single_slow_step_is_forgotten_and_told_of():
    case = make_case(1)
    sample = make_sample(case)
    slow = dataclasses.replace(sample, step_time_s=(3.0, *sample.step_time_s[1:]))
    split = parts.split_step(slow)
    assert split.step_s == pytest.approx(0.35)
    assert split.mean_step_s > 0.6
    measured = measure(case, slow, slow, slow)
    assert measured.rate.median == pytest.approx(1000 / 0.35)
    assert any("single slow steps" in note for note in measured.notes)


@pytest.mark.parametrize(
    ("mode", "ideal_share"), [("weak", 1.0), ("strong", 0.5)], ids=["weak", "strong"]
)
def test_each_lost_percent_by_hand(mode, ideal_share):
    """Two ranks lose 0.1 s to the exchange and 0.05 s in forward, and win 0.01 s in data."""
    one, two = make_case(1, mode), make_case(2, mode)
    base = measure(one, make_sample(one))
    ideal = {name: ideal_share * value for name, value in PARTS.items()}
    own = ideal | {
        "exposed_comm": 0.1, "forward": ideal["forward"] + 0.05, "data": ideal["data"] - 0.004
    }  # fmt: skip
    measured = measure(two, make_sample(two, own))
    step = ideal_share * 0.35 + 0.146
    assert measured.step_s == pytest.approx(step)
    assert lost.efficiency(measured, base) == pytest.approx(ideal_share * 0.35 / step)
    points = lost.lost_points(measured, base)
    expected = {"exchange": 10 / step, "forward": 5 / step, "data": -0.4 / step}
    assert points == pytest.approx(dict.fromkeys(parts.PARTS, 0.0) | expected, abs=1e-9)


@settings(max_examples=50)
@given(
    base=one_rank, own=st.lists(one_rank, min_size=2, max_size=5),
    others=st.tuples(seconds, seconds),
    tokens=st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)),
)  # fmt: skip
def test_the_parts_of_the_loss_add_up_to_the_loss(base, own, others, tokens):
    """Whatever was measured, in several repeats: also an unequal share of the work."""
    one, many = make_case(1), make_case(len(own))
    for each in (base, *own):
        each["forward"] += 0.1  # a step of no time is refused long before
    first = measure(one, make_sample(one, base, other=others[0], tokens=tokens[0]))
    second = measure(
        many,
        make_sample(many, own, other=others[1], tokens=tokens[1]),
        make_sample(many, own[::-1], other=others[0], tokens=tokens[1]),
    )
    assert math.fsum(second.parts_s.values()) == pytest.approx(second.step_s)
    lost_points = lost.lost_points(second, first)
    loss = 100 * (1 - lost.efficiency(second, first))
    assert math.fsum(lost_points.values()) == pytest.approx(loss, rel=1e-6, abs=1e-6)


def test_the_baseline_loses_nothing_and_is_of_the_same_mode_and_precision():
    cases = [make_case(2), make_case(1), make_case(4, "strong"), make_case(8, precision="bf16")]
    measured = tuple(measure(case, make_sample(case)) for case in cases)
    found = [lost.choose_baseline(m, measured).case.key for m in measured]
    assert found == [cases[1].key, cases[1].key, cases[2].key, cases[3].key]
    assert lost.lost_points(measured[1], measured[1]) is None


def test_ranks_that_reported_too_little_have_no_parts():
    case = make_case(2)
    sample = make_sample(case)
    measured = measure(case, dataclasses.replace(sample, ranks=sample.ranks[:1]))
    assert measured.parts_s is None
    assert "1 of 2 ranks reported parts" in measured.notes[0]


def test_a_metric_alone_is_a_rate():
    case = make_case(2, precision=None)
    measured = measure_case(
        case, [store(case, foreign_sample(2), k, metric=(90.0, 100.0, 400.0)) for k in range(3)]
    )
    assert (measured.unit, measured.rate.median, measured.step_s) == (METRIC, 100.0, None)


def test_without_tokens_steps_are_counted():
    """In weak scaling each rank's, so that four ranks do four times the work of one."""
    weak, strong = make_case(4), make_case(4, "strong")
    for case, unit, rate in ((weak, "rank-steps/s", 4 / 0.35), (strong, "steps/s", 1 / 0.35)):
        measured = measure(case, dataclasses.replace(make_sample(case), tokens_per_step=None))
        assert (measured.unit, measured.rate.median) == (unit, pytest.approx(rate))


@pytest.mark.parametrize(
    ("np", "settings", "sent"),
    [
        (1, {}, 0),
        (2, {}, 4_000_000),
        (4, {}, 6_000_000),
        (4, {"compression": "fp16"}, 3_000_000),
        (4, {"sharded": True}, 6_000_000),
        (4, {"sharded": True, "compression": "fp16"}, 4_500_000),
        (4, {"backend": "none"}, 0),
    ],
)
def test_bytes_that_a_step_sends(np, settings, sent):
    assert wire_bytes(1_000_000, np, ExchangeSettings(**settings)) == sent


def slowed(case, seed, *, rank=None, by=0.0, noise=0.05, np=4):
    own = [dict(PARTS) for _ in range(np)]
    if rank is not None:
        own[rank]["backward"] *= 1 + by
    return make_sample(case, own, noise=noise, seed=seed, steps=20)


@pytest.mark.parametrize("np", [2, 3, 8])
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_noise_is_no_straggler(np, noise):
    case = make_case(np)
    for seed in range(20):
        samples = [slowed(case, 1000 * seed + k, noise=noise, np=np) for k in range(3)]
        assert find_stragglers(samples) == ()
        assert find_stragglers(samples[:1]) == ()


@pytest.mark.parametrize("repeats", [1, 5])
@pytest.mark.parametrize("np", [2, 4])
def test_a_straggler_is_named_with_its_host_and_part(np, repeats):
    case = make_case(np, nodes=2)
    samples = [slowed(case, k, rank=np - 1, by=0.6, np=np) for k in range(repeats)]
    (found,) = find_stragglers(samples)
    assert (found.rank, found.host, found.part) == (np - 1, "n1", "backward")
    assert found.slower == pytest.approx(0.6 * 0.2 / 0.35, rel=0.1)
    assert found.slower > found.threshold >= 0.1


def test_a_slow_host_gives_all_its_ranks():
    case = make_case(8, nodes=2)
    own = [PARTS if rank < 4 else PARTS | {"forward": 0.2} for rank in range(8)]
    samples = [make_sample(case, own, noise=0.03, seed=k) for k in range(3)]
    assert {straggler.host for straggler in find_stragglers(samples)} == {"n1"}
    assert len(find_stragglers(samples)) == 4


def test_slow_once_is_no_straggler():
    case = make_case(4)
    samples = [slowed(case, k) for k in range(4)] + [slowed(case, 9, rank=2, by=2.0)]
    assert find_stragglers(samples) == ()
