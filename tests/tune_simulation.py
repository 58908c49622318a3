"""Searches for the fastest settings on candidates whose times are known: how often are they right?

    python tests/tune_simulation.py --searches 400

prints the table of docs/tune.md: of so many searches of 11 values of 5 settings (480 combinations),
by the noise of a trial's median step (relative standard deviation), in how many something is taken
though nothing gains; in how many something is taken beside the one value that gains (20 %); and in
how many the choice reaches 95 % of the best combination's speed, where several values gain and
interact a little.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random

from hpctrain.tune.halving import search_arms
from hpctrain.tune.search import STEPS, Limits, Measured, Search
from hpctrain.tune.verdict import judge

VALUES = {
    "a": ("1", "2", "3"),
    "b": ("1",),
    "c": ("1", "2", "3", "4"),
    "d": ("1", "2"),
    "e": ("1",),
}
LAUNCH_S = 3.5
GAINS = (("c", "3"),)


def simulate(
    time_of, values=VALUES, seed=0, budget_s=600.0, noise=0.0, never=frozenset(), one_sided=False
):
    """Play a search; a failing candidate has no time."""
    rng = random.Random(seed)
    search, asks = Search(Limits(budget_s)), []
    trials = search_arms(values, search, seed, never)
    try:
        ask = next(trials)
        while True:
            asks.append(ask)
            step_s = time_of(ask.arm)
            if step_s is not None:
                step_s *= math.exp(disturbance(rng, noise, one_sided))
            wall_s = LAUNCH_S + (step_s or 0.0) * STEPS
            ask = trials.send(Measured(step_s, wall_s))
    except StopIteration:
        return search, asks


def disturbance(rng, noise, one_sided=False):
    """Return the logarithm of what disturbs a trial.

    One-sided: half of the noise on both sides, and one trial in seven is slower by four times the
    noise on average, as on a machine that others use.
    """
    if not one_sided:
        return rng.gauss(0, noise)
    slow = rng.expovariate(1 / (4 * noise)) if rng.random() < 1 / 7 else 0.0
    return rng.gauss(0, noise / 2) + slow


def landscape(seed):
    """Return times of all combinations: some values gain, most do not, and a little interacts."""
    rng = random.Random(seed)
    pairs = [(knob, label) for knob, labels in VALUES.items() for label in labels]
    effects = {
        pair: rng.choice([0, 0, 0, rng.gauss(0, 0.02), -abs(rng.gauss(0, 0.2)),
                          abs(rng.gauss(0, 0.3))])
        for pair in pairs
    }  # fmt: skip
    both = {frozenset(two): rng.gauss(0, 0.01) for two in itertools.combinations(pairs, 2)}

    def time_of(arm):
        extra = sum(both[frozenset(two)] for two in itertools.combinations(arm, 2))
        return 0.3 * math.exp(sum(effects[pair] for pair in arm) + extra)

    return time_of


def all_arms():
    columns = [[None, *((knob, label) for label in labels)] for knob, labels in VALUES.items()]
    for chosen in itertools.product(*columns):
        yield tuple(pair for pair in chosen if pair is not None)


def simulate_nothing_gains(seeds, noise, one_sided=False):
    """Return what is found where all candidates are alike."""
    searches = (
        simulate(lambda arm: 0.3, seed=seed, noise=noise, one_sided=one_sided)[0] for seed in seeds
    )
    return [judge(search, VALUES) for search in searches]


def simulate_one_gains(seeds, noise, one_sided=False):
    """Return what is found where GAINS makes a run 1.2 times as fast, and nothing else does."""

    def time_of(arm):
        return 0.3 / (1.2 if set(GAINS) <= set(arm) else 1.0)

    searches = (simulate(time_of, seed=seed, noise=noise, one_sided=one_sided)[0] for seed in seeds)
    return [judge(search, VALUES) for search in searches]


def simulate_reach(seeds, noise, one_sided=False):
    """Return which part of the best combination's speed the choice has, in landscapes."""
    reached = []
    for seed in seeds:
        time_of = landscape(seed)
        search, _ = simulate(time_of, seed=seed, noise=noise, one_sided=one_sided)
        best_s = min(map(time_of, all_arms()))
        reached.append(best_s / time_of(judge(search, VALUES).arm))
    return reached


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--searches", type=int, default=400)
    seeds = range(parser.parse_args().searches)
    print("| noise | nothing gains, taken | beside a gain, taken | within 5 % | worst |")
    print("|---|---|---|---|---|")
    for one_sided in (False, True):
        for noise in (0.01, 0.02, 0.03):
            wrong = sum(bool(v.arm) for v in simulate_nothing_gains(seeds, noise, one_sided))
            verdicts = simulate_one_gains(seeds, noise, one_sided)
            beside = sum(bool(set(v.arm) - set(GAINS)) for v in verdicts)
            reached = simulate_reach(seeds, noise, one_sided)
            within = sum(each >= 0.95 for each in reached)
            parts = [f"{100 * count / len(seeds):.1f} %" for count in (wrong, beside, within)]
            kind = ", one-sided" if one_sided else ""
            print(f"| {noise:.0%}{kind} | {' | '.join(parts)} | {100 * min(reached):.0f} % |")


if __name__ == "__main__":
    main()
