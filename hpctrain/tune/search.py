"""A search as values: what is asked, what was measured, and what can be read from it. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpctrain.tune.arms import DEFAULT, Arm

STEPS, WARMUP_STEPS, MOST_STEPS = 5, 2, 60
ABOUT = 1.01  # times as long: about as fast
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
    def pairs(self) -> int:
        """How many rounds the last rung had."""
        return sum(each.rung == FINAL for each in self.rounds)

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
        """Return the arms by their best in common rounds, the fastest first; [] without any.

        What disturbs a trial makes it slower, never faster, so of few values the smallest says
        most (Chen and Revels 2016, "Robust benchmarking in noisy environments").
        """
        best = self._best(arms)
        return sorted(best, key=lambda arm: (best[arm], arm))

    def simplest_first(self, arms: Sequence[Arm]) -> list[Arm]:
        """Rank as :meth:`ranked`, but put the simplest of those that are about the best first."""
        order, best = self.ranked(arms), self._best(arms)
        near = [arm for arm in order if best[arm] < ABOUT * best[order[0]]]
        first = min(near, key=len, default=None)
        return sorted(order, key=lambda arm: arm != first)

    def faster(self, arms: Sequence[Arm]) -> list[Arm]:
        """Return those that were faster than the default, the fastest first."""
        arms = self.measured(arms) or [arm for arm in arms if arm not in self.failed]
        ranked = self.ranked([*arms, DEFAULT])
        return ranked[: ranked.index(DEFAULT)] if ranked else []

    def effects(self, singles: Sequence[Arm]) -> dict[tuple[str, str], float]:
        """Return the logarithm of each value's best step over the default's, in their rounds."""
        found = {}
        for arm in singles:
            best = self._best([arm, DEFAULT])
            if best and arm not in self.failed:
                found[arm[0]] = math.log(best[arm] / best[DEFAULT])
        return found

    def _best(self, arms: Sequence[Arm]) -> dict[Arm, float]:
        """Return the smallest step of each arm in the rounds that had them all; {} without any."""
        common = [r for r in self.rounds if all(arm in r.step_s for arm in arms)]
        return {arm: min(r.step_s[arm] for r in common) for arm in arms} if common else {}
