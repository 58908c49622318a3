"""Does something between the hosts stop connections on the ports that a run uses?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hpctrain.executor import MAX_PARALLEL_HOSTS
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.fleet import Fleet, not_asked
from hpctrain.preflight.meet import OPEN, REFUSED, Meeting, meet
from hpctrain.preflight.meetings import CODE, choose_address
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

# For neighbours that are asked a little later: an ssh login can take some seconds.
LISTEN_S = 12.0
# Both must have been at it together for so long that a refusal means a firewall.
TOGETHER_S = 1.0
SHOWN_PAIRS = 4


def _look(task: NodeTask) -> dict[str, Any] | None:
    asked = task.more.get(CODE)
    if not asked:
        return None
    neighbours = {
        name: choose_address(task.hosts.get(name, ()), task.subnet, task.launcher)
        for name in asked["neighbours"]
    }
    ranges = [(low, high) for low, high in asked["ranges"]]
    return asyncio.run(meet(Meeting(task.host, ranges, neighbours, LISTEN_S)))


MEETING = Probe(CODE, _look, LISTEN_S + 8.0)


def judge_firewall(fleet: Fleet) -> Iterator[Verdict]:
    """Name the pairs of hosts of which one cannot connect to the other, and on which ports."""
    for host, answer in fleet.answers.get(CODE, {}).items():
        if answer.error:
            yield not_asked(CODE, host, answer.error)
    known = {host: value for host, value in fleet.answers_of(CODE).items() if value is not None}
    tries = [each for each in _tries(known) if each.target not in fleet.unreachable]
    stopped = [each for each in tries if each.is_stopped(known)]
    yield from _describe_stopped(stopped, fleet)
    unsure = [each for each in tries if each.outcome == REFUSED and each not in stopped]
    if unsure:
        pairs = list(dict.fromkeys(each.pair for each in unsure))
        # Of more hosts than are asked at once, some start when their neighbour has ended.
        many = len(fleet.tasks) > MAX_PARALLEL_HOSTS
        found = f"{_name_pairs(pairs, 'to')}: refused, but they did not listen together"
        fix = "alone it takes less time: hpctrain preflight --only firewall"
        hosts = tuple(dict.fromkeys(host for pair in pairs for host in pair))
        yield Verdict(CODE, SKIP if many else WARN, found, fix, "", hosts)
    wrong = {each.source for each in (*stopped, *unsure)}
    fine = dict.fromkeys(each.source for each in tries if each.source not in wrong)
    if fine:
        words = ", ".join(_by_number({each.ports for each in tries}))
        yield Verdict(CODE, PASS, f"connect to their neighbours on TCP {words}", hosts=tuple(fine))


class _Try(NamedTuple):
    """What came of trying one range of ports of a neighbour."""

    source: str
    target: str
    ports: str
    outcome: str

    @property
    def pair(self) -> tuple[str, str]:
        return self.source, self.target

    def is_stopped(self, known: Mapping[str, Mapping[str, Any]]) -> bool:
        """Return whether something stops it; a refusal counts where the neighbour listened."""
        if self.outcome != REFUSED:
            return self.outcome != OPEN
        return _listened(known[self.source], known.get(self.target), self.ports)


def _tries(known: Mapping[str, Mapping[str, Any]]) -> Iterator[_Try]:
    for source, value in known.items():
        for target, outcomes in value["tries"].items():
            for ports, outcome in outcomes.items():
                yield _Try(source, target, ports, outcome)


def _listened(value: Mapping[str, Any], other: Mapping[str, Any] | None, ports: str) -> bool:
    """Return whether the neighbour listened in a range while it was tried there."""
    if other is None:
        return False
    low, high = (int(end) for end in ports.split("-"))
    listened = any(low <= port <= high for port in other["listening"])
    together_s = min(value["tried_s"], other["to_s"]) - max(value["from_s"], other["from_s"])
    return listened and together_s >= TOGETHER_S


def _describe_stopped(stopped: Sequence[_Try], fleet: Fleet) -> Iterator[Verdict]:
    """Yield a verdict for each set of pairs that fail alike, their ranges joined."""
    alike: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for each in stopped:
        alike.setdefault((each.ports, each.outcome), []).append(each.pair)
    joined: dict[tuple[tuple[tuple[str, str], ...], str], list[str]] = {}
    for (ports, outcome), pairs in alike.items():
        joined.setdefault((tuple(pairs), outcome), []).append(ports)
    for (pairs, outcome), ports in joined.items():
        words = ", ".join(_by_number(ports))
        found = f"{_name_pairs(pairs)} on TCP {words}: {outcome}"
        source, target = pairs[0]
        task = fleet.tasks[target]
        address = choose_address(task.hosts.get(source, ()), task.subnet, task.launcher) or source
        fix = (
            f"in a cloud a rule of the security group for TCP {words}; else on {target}: "
            f"firewall-cmd --zone=trusted --add-source={address} || ufw allow from {address}"
        )
        yield Verdict(CODE, FAIL, found, fix, "open to each other", find_culprits(pairs))


def find_culprits(pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return the hosts that closed pairs (from, to) speak against.

    A firewall mostly stops what comes in, so it is the host that was tried; but one that
    reaches neither of its two neighbours, while others reach them, is stopped itself.

    >>> find_culprits([("a", "b"), ("c", "b")]), find_culprits([("b", "a"), ("b", "c")])
    (('b',), ('b',))
    """
    tried = [to for _, to in pairs]
    trying = [source for source, _ in pairs]
    culprits = [
        source if trying.count(source) > 1 and tried.count(to) == 1 else to
        for source, to in pairs
    ]  # fmt: skip
    return tuple(dict.fromkeys(culprits))


def _name_pairs(pairs: Sequence[tuple[str, str]], verb: str = "cannot reach") -> str:
    shown = ", ".join(f"{source} {verb} {to}" for source, to in pairs[:SHOWN_PAIRS])
    rest = len(pairs) - SHOWN_PAIRS
    return f"{shown} and {rest} pairs more" if rest > 0 else shown


def _by_number(ranges: Any) -> list[str]:
    return sorted(ranges, key=lambda ports: int(ports.split("-")[0]))


FIREWALL = Check(CODE, judge_firewall, (MEETING,), needs_hosts=True)
