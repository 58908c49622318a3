"""Which ranks or hosts do the others wait for, while a run runs? Pure, and streaming.

A rank's own work is its step without the exchange; its factor is that over the median of the other
ranks (as in :mod:`hpctrain.bench.report.stragglers`, which looks at a measurement afterwards). What
is SLOWER for WINDOWS windows in a row is named, once until it is as fast as the others again.

The wait for the exchange tells no straggler: steps take all ranks equally long, so whoever works
longer waits less. A link shows otherwise: where all ranks of a host wait longer and none of them
works less, or where even the shortest wait of any rank grows against the run's own past.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OWN_PARTS = ("data", "forward", "backward", "optimizer")
EXPOSED = "exposed_comm"
PARTS = (*OWN_PARTS, EXPOSED)
SLOWER, AS_FAST_AGAIN = 1.3, 1.15
WINDOW_STEPS, WINDOWS = 20, 3
LEAST_S = 5.0
"""So long something must have been slow: a few milliseconds in short steps are chance."""
SLOWER_LINK, LEAST_PART_OF_STEP = 2.0, 0.1
"""An exchange varies more than computing does; one that takes next to nothing varies at will."""
OPEN_WINDOWS = 4
EVERYBODY = ""
"""Stands for a host where the exchange of all ranks is meant."""
CAUSES: Mapping[str, str] = {
    "data": "it waits for data: its storage, or too few processors for its loader",
    "compute": "it computes slower: clocks (heat, a power limit), or other processes on its host",
    "link": "the way to it: its network card, cable or switch port",
}


@dataclass(frozen=True, slots=True)
class Slowness:
    """Something that the others wait for, or that is over.

    Args:
        kind: "straggler", "straggler host", "slow exchange", or "recovered".
        ranks: whose; empty where it is all ranks'.
        factor: own time over that of the others, or over what it was before.
        cause: "data", "compute" or "link", the likely one; "" where it is over.
        text: for people.
    """

    kind: str
    ranks: tuple[int, ...]
    host: str | None
    factor: float
    cause: str
    text: str


@dataclass(slots=True)
class _Window:
    """Some steps of every rank: its steps and seconds by part, and how many ranks are through."""

    steps: dict[int, int] = field(default_factory=dict)
    sums_s: dict[int, list[float]] = field(default_factory=dict)
    through: int = 0

    def add(self, rank: int, steps: int, values_s: Sequence[float]) -> None:
        before_s = self.sums_s.get(rank, [0.0] * len(PARTS))
        self.sums_s[rank] = [b + steps * v for b, v in zip(before_s, values_s, strict=True)]
        self.steps[rank] = self.steps.get(rank, 0) + steps

    def mean_s(self, rank: int, parts: Sequence[str]) -> float:
        """Return what these parts took this rank, a step (s)."""
        sums_s = self.sums_s[rank]
        return sum(sums_s[PARTS.index(part)] for part in parts) / self.steps[rank]


@dataclass(slots=True)
class _Streak:
    """For how many windows in a row something has been slow, or, once named, fast again."""

    windows: int = 0
    slow_s: float = 0.0
    factors: list[float] = field(default_factory=list)
    is_named: bool = False
    fast_windows: int = 0

    @property
    def factor(self) -> float:
        return statistics.median(self.factors[-WINDOWS:])


class StragglerWatch:
    """Takes every rank's ``rank_step`` events; says what has become slow, and what has not.

    It costs a few numbers a rank, and a sort of them every WINDOW_STEPS steps.

    Args:
        size: number of ranks.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._hosts: dict[int, str] = {}
        self._last_step: dict[int, int] = {}
        self._in_window: dict[int, int] = {}
        self._windows: dict[int, _Window] = {}
        self._first_window: int | None = None
        self._streaks: dict[int | str, _Streak] = {}
        self._first_exchanges_s: list[float] = []

    def note(self, rank: int, host: str, record: Mapping[str, Any]) -> list[Slowness]:
        """Take one event; return what is to be said, mostly nothing.

        Args:
            record: means (s) of the steps since this rank's last event, see docs/measurement.md.
        """
        values_s = [record.get(f"{part}_s") for part in PARTS]
        step = record.get("step")
        if not isinstance(step, int) or not all(isinstance(v, (int, float)) for v in values_s):
            return []  # some other program's event of that name
        self._hosts[rank] = host
        steps = step - self._last_step.get(rank, step)
        self._last_step[rank] = step
        if steps <= 0:
            return []  # the first event: of how many steps is not known, and they warm up
        number = (step - 1) // WINDOW_STEPS
        self._open(number).add(rank, steps, values_s)
        through = [self._in_window.pop(rank, number)]
        if step % WINDOW_STEPS:
            self._in_window[rank] = number
            through = [before for before in through if before != number]
        elif through != [number]:
            through.append(number)
        return [found for each in through for found in self._leave(each)]

    def _open(self, number: int) -> _Window:
        if self._first_window is None:
            self._first_window = number
        if number not in self._windows:
            self._windows[number] = _Window()
            for old in [n for n in self._windows if n <= number - OPEN_WINDOWS]:
                del self._windows[old]  # somebody's events of it were lost
        return self._windows[number]

    def _leave(self, number: int) -> list[Slowness]:
        """Count a rank that is through with a window; judge what all ranks are through with."""
        window = self._windows.get(number)
        if window is None:
            return []
        window.through += 1
        if window.through < self._size:
            return []
        del self._windows[number]
        is_whole = len(window.steps) == self._size > 1
        return self._judge(window) if is_whole and number != self._first_window else []

    def _judge(self, window: _Window) -> list[Slowness]:
        ranks = sorted(window.steps)
        own_s = {rank: window.mean_s(rank, OWN_PARTS) for rank in ranks}
        exposed_s = {rank: window.mean_s(rank, [EXPOSED]) for rank in ranks}
        step_s = statistics.median(own_s[rank] + exposed_s[rank] for rank in ranks)
        window_s = step_s * max(window.steps.values())
        factors = dict(zip(ranks, factors_to_others(list(own_s.values())), strict=True))
        slow, fast = self._count(factors, SLOWER, window_s)
        found = self._name_ranks(window, [rank for rank in slow if isinstance(rank, int)])
        link_factors = self._compare_links(own_s, exposed_s, step_s)
        slow_links, fast_links = self._count(link_factors, SLOWER_LINK, window_s)
        found += [self._name_link(str(host)) for host in slow_links]
        return found + [self._say_recovered(key) for key in (*fast, *fast_links)]

    def _count(
        self, factors: Mapping[Any, float], slower: float, window_s: float
    ) -> tuple[list[int | str], list[int | str]]:
        """Go on counting; return what is to be named now, and what is over."""
        slow: list[int | str] = []
        fast: list[int | str] = []
        for key, factor in factors.items():
            streak = self._streaks.get(key)
            if streak is not None and streak.is_named:
                streak.fast_windows = streak.fast_windows + 1 if factor <= AS_FAST_AGAIN else 0
                if streak.fast_windows == WINDOWS:
                    del self._streaks[key]
                    fast.append(key)
            elif factor > slower:
                streak = self._streaks.setdefault(key, _Streak())
                streak.windows, streak.slow_s = streak.windows + 1, streak.slow_s + window_s
                streak.factors.append(factor)
                if streak.windows >= WINDOWS and streak.slow_s >= LEAST_S:
                    streak.is_named = True
                    slow.append(key)
            elif streak is not None:
                del self._streaks[key]
        return slow, fast

    def _name_ranks(self, window: _Window, slow: Sequence[int]) -> list[Slowness]:
        """Say who is slow; where that is all ranks of a host, the host."""
        by_host: dict[str, list[int]] = defaultdict(list)
        for rank in slow:
            by_host[self._hosts[rank]].append(rank)
        sizes = Counter(self._hosts.values())
        found = []
        for host, ranks in by_host.items():
            is_host = len(sizes) > 1 and len(ranks) == sizes[host] > 1
            for group in [ranks] if is_host else [[rank] for rank in ranks]:
                who = f"host {host}, all of its {len(group)} ranks:" if is_host else (
                    f"rank {group[0]} on {host}:")  # fmt: skip
                factor = statistics.median(self._streaks[rank].factor for rank in group)
                cause = _find_cause(window, group)
                text = (
                    f"{who} {factor:.2g} times as long for its part of a step as the others, and "
                    f"they wait. Likely {CAUSES[cause]}"
                )
                kind = "straggler host" if is_host else "straggler"
                found.append(Slowness(kind, tuple(group), host, factor, cause, text))
        return found

    def _compare_links(
        self, own_s: Mapping[int, float], exposed_s: Mapping[int, float], step_s: float
    ) -> dict[str, float]:
        """Return how much longer the exchange takes: all ranks than once, hosts than others."""
        least_s = LEAST_PART_OF_STEP * step_s
        shortest_s = min(exposed_s.values())
        if len(self._first_exchanges_s) < WINDOWS:
            self._first_exchanges_s.append(shortest_s)
        usual_s = statistics.median(self._first_exchanges_s)
        factors = {EVERYBODY: _grown(shortest_s, usual_s, least_s)}
        by_host: dict[str, list[int]] = defaultdict(list)
        for rank in own_s:
            by_host[self._hosts[rank]].append(rank)
        if len(by_host) == 1:
            return factors
        # What a rank waits beyond the slowest rank's work is the exchange itself.
        slowest_s = max(own_s.values())
        waits_s = {
            host: min(exposed_s[rank] - (slowest_s - own_s[rank]) for rank in ranks)
            for host, ranks in by_host.items()
        }
        usual_s = statistics.median_low(waits_s.values())
        return factors | {
            host: _grown(wait_s, usual_s, least_s) for host, wait_s in waits_s.items()
        }

    def _name_link(self, host: str) -> Slowness:
        factor = self._streaks[host].factor
        if host == EVERYBODY:
            text = (
                f"the exchange takes all ranks {factor:.2g} times as long as at the beginning. "
                "Likely a link between hosts, or other traffic on it"
            )
            return Slowness("slow exchange", (), None, factor, "link", text)
        ranks = tuple(sorted(rank for rank, each in self._hosts.items() if each == host))
        text = (
            f"host {host}, all of its ranks: {factor:.2g} times as long for the exchange as the "
            f"others, though they work as long. Likely {CAUSES['link']}"
        )
        return Slowness("straggler host", ranks, host, factor, "link", text)

    def _say_recovered(self, key: int | str) -> Slowness:
        if key == EVERYBODY:
            return Slowness("recovered", (), None, 1.0, "", "the exchange is as fast as before")
        if isinstance(key, int):
            host = self._hosts[key]
            text = f"rank {key} on {host} is as fast as the others again"
            return Slowness("recovered", (key,), host, 1.0, "", text)
        return Slowness("recovered", (), key, 1.0, "", f"host {key} is as fast as the others again")


def factors_to_others(values: Sequence[float]) -> list[float]:
    """Return each value over the median of the other values; one sort for all of them.

    >>> factors_to_others([1.0, 1.0, 4.0])
    [0.4, 0.4, 4.0]
    """
    ordered = sorted(values)
    others = len(values) - 1
    found = []
    for value in values:
        place = bisect_left(ordered, value)
        low, high = (i + (i >= place) for i in ((others - 1) // 2, others // 2))
        median = (ordered[low] + ordered[high]) / 2
        found.append(value / median if median > 0 else 1.0)
    return found


def _grown(value_s: float, usual_s: float, least_s: float) -> float:
    """Return the factor, or 1 where it is a matter of less than `least_s`."""
    return value_s / usual_s if usual_s > 0 and value_s - usual_s > least_s else 1.0


def _find_cause(window: _Window, ranks: Sequence[int]) -> str:
    """Return in what these ranks lose most against the others."""
    others = [rank for rank in window.steps if rank not in set(ranks)]

    def behind_s(parts: Sequence[str]) -> float:
        mine, theirs = (
            statistics.median(window.mean_s(rank, parts) for rank in group)
            for group in (ranks, others)
        )
        return mine - theirs

    compute = [part for part in OWN_PARTS if part != "data"]
    return "data" if behind_s(["data"]) > behind_s(compute) else "compute"
