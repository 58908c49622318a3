"""Which candidate is measured next? Successive halving over settings; pure, and it knows no clock.

Karnin, Koren and Somekh (2013, "Almost optimal exploration in multi-armed bandits") and Jamieson
and Talwalkar (2016, "Non-stochastic best arm identification") share the time among rungs: all
candidates get a little, the better half gets more, until the best few have got most of it.

A full grid would be hundreds of candidates. So the rungs are: each value ``alone`` beside the
default; each knob's better half ``again``; what gained ``together``; the neighbours ``around`` the
best of these, for what is good alone may not be beside others; a ``few`` once more; and at the end
(``final``) the winner, the winner with fewer of its choices, and the default, in turn, so that
every choice is judged by pairs from one time (:mod:`hpctrain.tune.verdict`).

The search is a generator: it yields an :class:`~hpctrain.tune.search.Ask` and is sent what was
measured. The same answers lead to the same questions, so a search that was interrupted is played
again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Mapping, Sequence

from hpctrain.tune.arms import (
    DEFAULT,
    MOST_AROUND,
    MOST_FINALISTS,
    MOST_TOGETHER,
    Arm,
    better_half_of_each_knob,
    combine,
    finalists,
    interleave,
    neighbours,
)
from hpctrain.tune.search import FINAL, Ask, Measured, Round, Search

FEW_ROUNDS, FINAL_ROUNDS, LEAST_PAIRS = 1, 8, 3
RESERVED = 2 * LEAST_PAIRS  # trials that the other rungs leave to the smallest final
FIRST_RUNG_SHARE = 0.35
MOST_FEW = 4

Trials = Generator[Ask, Measured, None]


def count_trials(values: Mapping[str, Sequence[str]]) -> int:
    """Return how many trials a search takes at most, where the budget is no limit.

    >>> count_trials({"a": ("1", "2"), "b": ("1", "2", "3")})
    77
    """
    counts = [len(labels) for labels in values.values()]
    singles = sum(counts)
    again = sum(-(-count // 2) for count in counts)
    first = 1 + (singles + 1) + (again + 1)
    joint = min(again + len(counts) + 1, MOST_TOGETHER) + 1
    joint += min(singles + len(counts), MOST_AROUND)
    last = max(MOST_FINALISTS, 1 + len(counts)) + 2  # one that may not be chosen, and the default
    return first + joint + FEW_ROUNDS * MOST_FEW + FINAL_ROUNDS * last


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
    yield from _round([DEFAULT], search, "first look", seed, count_trials(values) - 1)
    if search.failed:
        return
    room = search.room() - RESERVED - 1
    fits = max(0, min(room, max(2, math.floor(room * FIRST_RUNG_SHARE))))
    alone, search.unmeasured = singles[:fits], tuple(singles[fits:])
    if not alone:
        return
    rest = count_trials(values) - len(alone) - 2
    yield from _round([DEFAULT, *alone], search, "alone", seed, rest)
    again = better_half_of_each_knob(search.ranked(search.measured(alone)))
    rest -= len(again) + 1
    if len(alone) > 1:
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
        last = search.simplest_first(search.measured([best[0], *around]))
        few = list(dict.fromkeys([*last[:2], best[0], *last[2:], *best[1:]]))[:MOST_FEW]
        for _ in range(FEW_ROUNDS):
            yield from _rung(few, search, "few", seed, FINAL_ROUNDS * 4)
        best = search.simplest_first([arm for arm in few if arm not in search.failed]) or few
    else:  # nothing gained: the last rung shows that with pairs
        best = [arm for arm in again if arm[0][0] not in never_chosen][:2]
    effects = search.effects([arm for arm in alone if arm not in search.failed])
    yield from _final(finalists(best, effects), extra, search, seed)


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
