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
        """Return the arms by their rounds in common, the fastest first; [] without any."""
        common = [r for r in self.rounds if all(arm in r.step_s for arm in arms)]
        if not common:
            return []
        logs = {a: statistics.fmean(math.log(r.step_s[a]) for r in common) for a in arms}
        return sorted(arms, key=lambda arm: (logs[arm], arm))

    def simplest_first(self, arms: Sequence[Arm]) -> list[Arm]:
        """Rank as :meth:`ranked`, but put the simplest of those that are about the best first."""
        order = self.ranked(arms)
        common = [r for r in self.rounds if all(arm in r.step_s for arm in arms)]
        near = [
            arm
            for arm in order
            if statistics.fmean(math.log(r.step_s[arm] / r.step_s[order[0]]) for r in common)
            < math.log(ABOUT)
        ]
        first = min(near, key=len, default=None)
        return sorted(order, key=lambda arm: arm != first)

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
