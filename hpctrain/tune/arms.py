"""Candidates as values, and which of them follow from others. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

# (knob, value) pairs that differ from what a run has now; () is the default.
Arm = tuple[tuple[str, str], ...]
DEFAULT: Arm = ()

MOST_TOGETHER, MOST_AROUND, MOST_FINALISTS = 8, 10, 4
HOPELESS = 1.25  # times the default's step: a value that slow alone is not tried beside others


def arm_name(arm: Arm) -> str:
    """Return what to call a candidate.

    >>> arm_name((("comm.bucket_mb", "4"), ("mpi_yield_when_idle", "0"))), arm_name(())
    ('comm.bucket_mb=4 mpi_yield_when_idle=0', 'default')
    """
    return " ".join(f"{knob}={value}" for knob, value in arm) or "default"


def interleave(values: Mapping[str, Sequence[str]]) -> list[Arm]:
    """Return all values alone: first each knob's first one, for a budget may not reach them all."""
    columns = [[((knob, label),) for label in labels] for knob, labels in values.items()]
    return [arm for row in itertools.zip_longest(*columns) for arm in row if arm is not None]


def better_half_of_each_knob(ranked: Sequence[Arm]) -> list[Arm]:
    """Return the better half of each knob's values, the fastest of all first."""
    counts: dict[str, int] = {}
    for ((knob, _),) in ranked:
        counts[knob] = counts.get(knob, 0) + 1
    left = {knob: -(-count // 2) for knob, count in counts.items()}
    kept = []
    for arm in ranked:
        left[arm[0][0]] -= 1
        if left[arm[0][0]] >= 0:
            kept.append(arm)
    return kept


def combine(best: Sequence[Arm]) -> list[Arm]:
    """Return the best value of each knob: all together, all but one, the best pair, and alone.

    >>> [arm_name(arm) for arm in combine([(("a", "1"),), (("b", "1"),), (("b", "2"),)])]
    ['a=1 b=1', 'a=1', 'b=1', 'b=2']
    """
    each: dict[str, Arm] = {}
    for arm in best:
        each.setdefault(arm[0][0], arm)
    gained = list(each.values())
    sets = [gained, *([a for a in gained if a is not left] for left in reversed(gained))]
    sets += [gained[:2], *([arm] for arm in best)]
    arms = (tuple(sorted(pair for arm in chosen for pair in arm)) for chosen in sets if chosen)
    return list(dict.fromkeys(arms))[:MOST_TOGETHER]


def neighbours(arm: Arm, effects: Mapping[tuple[str, str], float]) -> list[Arm]:
    """Return the arms that differ from one in one knob, those first that should be fastest.

    Args:
        effects: of each value alone: the logarithm of its step over the default's.
    """
    own = dict(arm)
    found: dict[Arm, float] = {}
    for knob, value in arm:
        without = tuple(pair for pair in arm if pair != (knob, value))
        if without:
            found[without] = -effects.get((knob, value), 0.0)
    for (knob, value), effect in effects.items():
        if own.get(knob) != value and effect < math.log(HOPELESS):
            instead = effects.get((knob, own[knob]), 0.0) if knob in own else 0.0
            found[tuple(sorted({**own, knob: value}.items()))] = effect - instead
    return sorted(found, key=lambda each: (found[each], each))[:MOST_AROUND]


def finalists(best: Sequence[Arm], effects: Mapping[tuple[str, str], float]) -> list[Arm]:
    """Return the winner, what is left of it with fewer choices, and who came next.

    Its strongest choice alone, its two strongest … show from which one on another adds nothing;
    without those small sets a choice that gains nothing would stay beside one that does.

    Args:
        effects: as for :func:`neighbours`.
    """
    if not best:
        return []
    winner = best[0]
    strongest = sorted(winner, key=lambda pair: (effects.get(pair, 0.0), pair))
    fewer = [tuple(sorted(strongest[:count])) for count in range(1, len(winner))]
    without = [tuple(pair for pair in winner if pair != left) for left in strongest]
    ranked = dict.fromkeys([winner, *fewer, *(arm for arm in without if arm), *best[1:3]])
    return list(ranked)[: max(MOST_FINALISTS, 1 + len(winner))]
