"""Is a gain more than chance gives? Against published quantiles, and against chance itself."""

import random

import pytest

from hpctrain.tune.chance import CONFIDENCE, least_gains, student_quantile


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),
    [(0.95, 4, 2.132), (0.95, 12, 1.782), (0.975, 6, 2.447), (0.99, 20, 2.528), (0.995, 8, 3.355)],
)
def test_quantiles_are_those_of_tables(probability, freedom, quantile):
    assert student_quantile(probability, freedom) == pytest.approx(quantile, rel=0.01)


def test_what_slows_a_whole_round_is_no_noise():
    table = [[2.0, 1.0], [20.0, 10.0], [3.0, 1.5], [2.5, 1.25]]
    assert least_gains(table, [(0, 1), (1, 0)], 2) == [pytest.approx(2.0), pytest.approx(0.5)]


def test_more_noise_fewer_rounds_or_more_candidates_make_it_less_sure():
    rng = random.Random(1)

    def table(rounds, noise):
        return [[rng.gauss(1.2, noise), rng.gauss(1.0, noise)] for _ in range(rounds)]

    quiet, loud = (least_gains(table(8, noise), [(0, 1)], 1)[0] for noise in (0.005, 0.05))
    assert 1.0 < loud < quiet < 1.2
    rows = table(8, 0.02)
    one, ten = (least_gains(rows, [(0, 1)], count)[0] for count in (1, 10))
    assert ten < one
    assert least_gains(rows[:2], [(0, 1)], 1) == [0.0]
    assert least_gains([], [(0, 1)], 1) == [0.0]


def test_the_best_of_several_is_chance_as_rarely_as_promised():
    rng = random.Random(2)
    wrong = 0
    for _ in range(400):
        table = [[rng.lognormvariate(0, 0.03) for _ in range(5)] for _ in range(7)]
        wrong += max(least_gains(table, [(0, column) for column in range(1, 5)], 4)) > 1.0
    assert wrong <= 1.5 * (1 - CONFIDENCE) * 400
