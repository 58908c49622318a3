"""Which candidate is measured next? Successive halving over settings; pure, and it knows no clock.

Karnin, Koren and Somekh (2013, "Almost optimal exploration in multi-armed bandits") and Jamieson
and Talwalkar (2016, "Non-stochastic best arm identification") share the time among rungs: all
candidates get a little, the better half gets more, until the best few have got most of it.

A full grid would be hundreds of candidates. So the rungs are: each value ``alone`` beside the
default; each knob's better half ``again``; what gained ``together``; the neighbours ``around`` the
best of these, for what is good alone may not be beside others; a ``few`` twice; and at the end
(``final``) the winner, the winner without each of its choices, and the default, in turn, so that
every choice is judged by pairs from one time (:mod:`hpctrain.tune.verdict`).

The search is a generator: it yields an :class:`Ask` and is sent what was :class:`Measured`. The
same answers lead to the same questions, so a search that was interrupted is played again.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

from hpctrain.tune.arms import (
    DEFAULT,
    MOST_AROUND,
    MOST_TOGETHER,
    Arm,
    better_half_of_each_knob,
    combine,
    finalists,
    interleave,
    neighbours,
)

STEPS, WARMUP_STEPS, MOST_STEPS = 5, 2, 60
FEW_ROUNDS, FINAL_ROUNDS, LEAST_PAIRS = 2, 7, 3
RESERVED = 2 * LEAST_PAIRS  # trials that the other rungs leave to the smallest final
FIRST_RUNG_SHARE = 0.35
MOST_FEW = 4
FINAL = "final"


@dataclass(frozen=True, slots=True)
class Ask:
    """The next trial.

    Args:
        round_number: from 0; a round measures each of a rung's arms once.
        left: trials that are still to come, this one among them, as far as can be told.
    """

    arm: Arm
    round_number: int
    rung: str
    left: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What a trial gave: the median step (s), None where it failed; its whole time (s)."""

    step_s: float | None
    wall_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the trials may take together (s), and steps of a trial and of a candidate."""

    budget_s: float
    steps: int = STEPS
    most_steps: int = MOST_STEPS


@dataclass(frozen=True, slots=True)
class Round:
    """The median step (s) of each arm in one round."""

    rung: str
    step_s: Mapping[Arm, float]


@dataclass(slots=True)
class Search:
    """What a search has seen, and at the end what it found."""

    limits: Limits
    rounds: list[Round] = field(default_factory=list)
    finalists: tuple[Arm, ...] = ()
    failed: set[Arm] = field(default_factory=set)
    unmeasured: tuple[Arm, ...] = ()
    """Candidates that the budget had no room for."""
    steps: dict[Arm, int] = field(default_factory=dict)
    walls_s: list[float] = field(default_factory=list)
    cut_short: bool = False
    """Whether the budget ended before the last rung did."""

    @property
    def spent_s(self) -> float:
        return sum(self.walls_s)

    @property
    def trial_s(self) -> float:
        """What a trial takes, by those so far."""
        return statistics.fmean(self.walls_s)

    def room(self) -> int:
        """Return how many more trials fit into the budget."""
        if not self.walls_s:
            return 10**9
        return max(0, math.floor((self.limits.budget_s - self.spent_s) / self.trial_s))

    def has_room(self) -> bool:
        """Return whether one more trial fits, even if it is as long as the longest."""
        return not self.walls_s or self.spent_s + max(self.walls_s) <= self.limits.budget_s

    def measured(self, arms: Sequence[Arm]) -> list[Arm]:
        """Return those of the arms that the newest round measured."""
        return [arm for arm in arms if self.rounds and arm in self.rounds[-1].step_s]

    def ranked(self, arms: Sequence[Arm]) -> list[Arm]:
        """Return the arms by their rounds in common, the fastest first; [] without any."""
        common = [r for r in self.rounds if all(arm in r.step_s for arm in arms)]
        if not common:
            return []
        logs = {a: statistics.fmean(math.log(r.step_s[a]) for r in common) for a in arms}
        return sorted(arms, key=lambda arm: (logs[arm], arm))

    def faster(self, arms: Sequence[Arm]) -> list[Arm]:
        """Return those that were faster than the default, the fastest first."""
        arms = self.measured(arms) or [arm for arm in arms if arm not in self.failed]
        ranked = self.ranked([*arms, DEFAULT])
        return ranked[: ranked.index(DEFAULT)] if ranked else []

    def effects(self, singles: Sequence[Arm]) -> dict[tuple[str, str], float]:
        """Return the logarithm of each value's step over the default's, over their rounds."""
        logs: dict[tuple[str, str], list[float]] = {}
        for each in self.rounds:
            for arm in singles:
                if arm in each.step_s and DEFAULT in each.step_s and arm not in self.failed:
                    ratio = each.step_s[arm] / each.step_s[DEFAULT]
                    logs.setdefault(arm[0], []).append(math.log(ratio))
        return {pair: statistics.fmean(values) for pair, values in logs.items()}


Trials = Generator[Ask, Measured, None]


def count_trials(singles: int) -> int:
    """Return about how many trials a search takes at most, where the budget is no limit.

    >>> count_trials(14)
    89
    """
    again = -(-singles // 2) + 2
    joint = min(singles, MOST_TOGETHER) + min(singles, MOST_AROUND) + 3
    return 2 + singles + again + joint + FEW_ROUNDS * (MOST_FEW + 1) + FINAL_ROUNDS * 6


def search_arms(
    values: Mapping[str, Sequence[str]],
    search: Search,
    seed: int,
    never_chosen: frozenset[str] = frozenset(),
) -> Trials:
    """Yield trials, and leave what is found in `search`.

    Args:
        values: knob → its values to try, the likeliest first.
        never_chosen: knobs that are measured, and are no part of what is found.
    """
    singles = interleave(values)
    yield from _round([DEFAULT], search, "first look", seed, count_trials(len(singles)) - 1)
    if search.failed:
        return
    room = search.room() - RESERVED - 1
    fits = max(0, min(room, max(2, math.floor(room * FIRST_RUNG_SHARE))))
    alone, search.unmeasured = singles[:fits], tuple(singles[fits:])
    rest = count_trials(len(alone)) - len(alone) - 2
    yield from _round([DEFAULT, *alone], search, "alone", seed, rest)
    again = better_half_of_each_knob(search.ranked(search.measured(alone)))
    rest -= len(again) + 1
    yield from _rung([DEFAULT, *again], search, "again", seed, rest)
    faster = search.faster(again)
    extra = [arm for arm in faster if arm[0][0] in never_chosen][:1]
    best = [arm for arm in faster if arm[0][0] not in never_chosen]
    if best:
        together = combine(best)
        rest -= len(together) + 1
        if len(together) > 1:
            yield from _rung(together, search, "together", seed, rest)
            best = search.ranked(search.measured(together)) or best
        effects = search.effects([arm for arm in alone if arm[0][0] not in never_chosen])
        around = neighbours(best[0], effects)
        rest -= len(around) + 2
        yield from _rung([best[0], *around], search, "around", seed, rest)
        last = search.ranked(search.measured([best[0], *around]))
        few = list(dict.fromkeys([*last[:2], best[0], *last[2:], *best[1:]]))[:MOST_FEW]
        for _ in range(FEW_ROUNDS):
            yield from _rung(few, search, "few", seed, FINAL_ROUNDS * 4)
        best = search.ranked([arm for arm in few if arm not in search.failed]) or few
    else:  # nothing gained: the last rung shows that with pairs
        best = [arm for arm in again if arm[0][0] not in never_chosen][:2]
    yield from _final(finalists(best), extra, search, seed)


def _round(arms: Sequence[Arm], search: Search, rung: str, seed: int, after: int = 0) -> Trials:
    """Measure each arm once, in an order of its own each round."""
    number = len(search.rounds)
    order = [arm for arm in arms if arm not in search.failed]
    random.Random(f"{seed} {number}").shuffle(order)
    step_s: dict[Arm, float] = {}
    for place, arm in enumerate(order):
        if not search.has_room():
            search.cut_short = True
            break
        left = len(order) - place + max(0, after)
        measured = yield Ask(arm, number, rung, max(1, min(left, search.room())))
        search.walls_s.append(measured.wall_s)
        search.steps[arm] = search.steps.get(arm, 0) + search.limits.steps
        if measured.step_s is None:
            search.failed.add(arm)
        else:
            step_s[arm] = measured.step_s
    search.rounds.append(Round(rung, step_s))


def _rung(arms: Sequence[Arm], search: Search, rung: str, seed: int, after: int) -> Trials:
    """Measure as many of the arms as leave time for the last rung; none rather than one."""
    arms = arms[: max(0, search.room() - RESERVED)]
    if len(arms) > 1:
        yield from _round(arms, search, rung, seed, after)


def _final(arms: list[Arm], extra: Sequence[Arm], search: Search, seed: int) -> Trials:
    """Repeat few against the default, as often as budget and steps allow."""
    room = search.room()
    arms = arms[: max(1, room // LEAST_PAIRS - 1)]
    if room // (len(arms) + 2) >= LEAST_PAIRS:
        arms += extra
    search.finalists = tuple(arms)
    most = max((search.steps.get(arm, 0) for arm in (DEFAULT, *arms)), default=0)
    repeats = min(FINAL_ROUNDS, (search.limits.most_steps - most) // search.limits.steps)
    repeats = min(repeats, max(LEAST_PAIRS, room // (len(arms) + 1)))
    for repeat in range(repeats if arms else 0):
        if search.room() < len(arms) + 1:
            search.cut_short = True
            return
        after = (repeats - repeat - 1) * (len(arms) + 1)
        yield from _round([DEFAULT, *arms], search, FINAL, seed, after)
