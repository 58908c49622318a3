"""What do the measurements say? Gains as medians of paired ratios with quartiles; pure.

A pair is two candidates in the same round, one after the other, so what slows the machine for a
while slows both. A gain is how many times as fast; its spread is from the lower to the upper
quartile. A choice is taken if it gains 1 % or more, its spread does not reach 1, and chance does
not give the best of so many candidates as much (:mod:`hpctrain.tune.chance`): fewer settings are
better than more.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpctrain.tune.arms import DEFAULT, Arm, arm_name
from hpctrain.tune.chance import least_gains
from hpctrain.tune.halving import LEAST_PAIRS
from hpctrain.tune.search import FINAL, Search

LEAST_GAIN = 1.01


@dataclass(frozen=True, slots=True)
class Gain:
    """How many times as fast: median and quartiles of so many pairs.

    Args:
        least: what it is at least (:func:`hpctrain.tune.chance.least_gains`); 0 where it was not
            measured in the last rung.
    """

    median: float
    low: float
    high: float
    pairs: int
    least: float = 0.0

    @property
    def is_sure(self) -> bool:
        """Whether it is worth a setting: more than chance and spread give, over enough pairs."""
        enough = self.pairs >= LEAST_PAIRS and self.median >= LEAST_GAIN
        return enough and min(self.low, self.least) > 1.0

    def __str__(self) -> str:
        pairs = f"{self.pairs} pair{'s' * (self.pairs != 1)}"
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f}, {pairs})"

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("median", "low", "high", "least", "pairs")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What became of one knob.

    Args:
        value: the one that is taken, or the best of those that are not.
        gain: of a taken one against the same settings without it, of others against the default.
    """

    knob: str
    value: str
    taken: bool
    gain: Gain | None
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to set, what all of it gains against the default, and what became of each knob."""

    arm: Arm
    gain: Gain | None
    choices: tuple[Choice, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "chosen": dict(self.arm),
            "gain": self.gain.as_json() if self.gain else None,
            "choices": [
                {"knob": c.knob, "value": c.value, "taken": c.taken, "why": c.why,
                 "gain": c.gain.as_json() if c.gain else None}
                for c in self.choices
            ],
        }  # fmt: skip


def judge(
    search: Search, values: Mapping[str, Sequence[str]], lossy: frozenset[str] = frozenset()
) -> Verdict:
    """Return what the measurements justify.

    Args:
        values: knob → the values that were to be tried.
        lossy: knobs that may not be chosen, because they change the numbers.
    """
    arm = _simplest(_best_finalist(search, lossy), search)
    choices = [_judge_knob(knob, labels, arm, search, lossy) for knob, labels in values.items()]
    return Verdict(arm, gain_of(search, arm, DEFAULT) if arm else None, tuple(choices))


def gain_of(search: Search, arm: Arm, against: Arm, *, only_final: bool = True) -> Gain | None:
    """Return how many times as fast `arm` is as `against`, by the rounds that had both."""
    ratios = [
        each.step_s[against] / each.step_s[arm]
        for each in search.rounds
        if arm in each.step_s and against in each.step_s and (each.rung == FINAL or not only_final)
    ]
    if not ratios:
        return None
    low, median, high = quartiles(ratios)
    return Gain(median, low, high, len(ratios), least_gain(search, arm, against))


def least_gain(search: Search, arm: Arm, against: Arm) -> float:
    """Return how many times as fast `arm` surely is, by the last rung; 0 where it was not in it."""
    arms = [DEFAULT, *search.finalists]
    if arm not in arms or against not in arms:
        return 0.0
    finals = [each.step_s for each in search.rounds if each.rung == FINAL]
    table = [[step_s[each] for each in arms] for step_s in finals if set(arms) <= step_s.keys()]
    pair = (arms.index(against), arms.index(arm))
    return least_gains(table, [pair], comparisons=len(search.finalists))[0]


def quartiles(numbers: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile.

    >>> quartiles([1.0, 2.0, 3.0]), quartiles([4.0])
    ((1.0, 2.0, 3.0), (4.0, 4.0, 4.0))
    """
    if len(numbers) < 2:
        return numbers[0], numbers[0], numbers[0]
    low, median, high = statistics.quantiles(numbers, n=4)
    return max(low, min(numbers)), median, min(high, max(numbers))  # two give no more than these


def _best_finalist(search: Search, lossy: frozenset[str]) -> Arm:
    """Return the finalist with the largest gain of those that are sure to gain."""
    sure = {}
    for arm in search.finalists:
        gain = gain_of(search, arm, DEFAULT)
        if gain is not None and gain.is_sure and not lossy & dict(arm).keys():
            sure[arm] = gain.median
    return max(sure, key=lambda arm: (sure[arm], -len(arm)), default=DEFAULT)


def _without(arm: Arm, knob: str) -> Arm:
    return tuple(pair for pair in arm if pair[0] != knob)


def _simplest(arm: Arm, search: Search) -> Arm:
    """Return the finalist with the fewest of an arm's choices that is not surely slower.

    That such a part gains by itself need not be as sure: all of the arm does, and a choice which
    adds nothing is not to stay because the rest of it had a bad trial.
    """
    parts = {
        part: gain.median
        for part in search.finalists
        if set(part) < set(arm)
        and (gain := gain_of(search, part, DEFAULT)) is not None
        and gain.low > 1.0
        and gain.median >= LEAST_GAIN
    }
    for part in sorted(parts, key=lambda part: (len(part), -parts[part])):
        gain = gain_of(search, arm, part)
        if gain is not None and not gain.is_sure:
            return part
    return arm


def _judge_knob(
    knob: str, labels: Sequence[str], arm: Arm, search: Search, lossy: frozenset[str]
) -> Choice:
    if knob in dict(arm):
        gain = gain_of(search, arm, _without(arm, knob))
        why = "gains more than the spread, beside the other choices"
        if gain is None:
            gain = gain_of(search, ((knob, dict(arm)[knob]),), DEFAULT, only_final=False)
            why = "part of a set that gains more than the spread; here its gain alone"
        return Choice(knob=knob, value=dict(arm)[knob], taken=True, gain=gain, why=why)
    singles: list[Arm] = [((knob, label),) for label in labels]
    gains = {a: g for a in singles if (g := gain_of(search, a, DEFAULT, only_final=False))}
    if not gains:
        broken = [a for a in singles if a in search.failed]
        why = f"fails: {', '.join(map(arm_name, broken))}" if broken else "the budget had no room"
        return Choice(knob=knob, value=labels[0], taken=False, gain=None, why=why)
    # The one that was measured most often has come farthest.
    best = max(gains, key=lambda a: (gains[a].pairs, gains[a].median))
    gain, value = gains[best], best[0][1]
    if knob in lossy:
        why = "changes the numbers: taken with --allow-lossy alone"
    elif gain.median <= 1.0:
        why = "not faster"
    elif gain.is_sure:
        why = "another set of choices was faster, and it adds nothing to that"
    else:
        why = "within the spread" if gain.low <= 1.0 else "may be chance"
        why = why if gain.median >= LEAST_GAIN else f"gains less than {LEAST_GAIN - 1:.0%}"
        why = why if gain.pairs >= LEAST_PAIRS else "fell behind the others early"
    return Choice(knob=knob, value=value, taken=False, gain=gain, why=why)
