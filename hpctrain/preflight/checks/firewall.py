"""Does something between the hosts stop connections on the ports that a run uses?"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.fleet import Fleet, not_asked
from hpctrain.preflight.meetings import CODE, choose_address, sample_ports
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

# For neighbours that are asked a little later: an ssh login can take some seconds.
LISTEN_S = 12.0
CONNECT_S = 3.0  # with one repeated SYN
AGAIN_S = 0.3
HELLO_BYTES = 300
OPEN, DROPPED, REFUSED = "open", "timed out", "refused"
# Both must have been at it together for so long that a refusal means a firewall.
TOGETHER_S = 1.0
SHOWN_PAIRS = 4


class _Meeting(NamedTuple):
    own_name: str
    ranges: list[tuple[int, int]]
    neighbours: dict[str, str | None]
    listen_s: float


def _look(task: NodeTask) -> dict[str, Any] | None:
    asked = task.more.get(CODE)
    if not asked:
        return None
    neighbours = {
        name: choose_address(task.hosts.get(name, ()), task.subnet, task.launcher)
        for name in asked["neighbours"]
    }
    ranges = [(low, high) for low, high in asked["ranges"]]
    return asyncio.run(meet(_Meeting(task.host, ranges, neighbours, LISTEN_S)))


MEETING = Probe(CODE, _look, LISTEN_S + 8.0)


async def meet(meeting: _Meeting) -> dict[str, Any]:
    """Listen on a few ports of each range, try the neighbours, wait until they have tried us."""
    heard: set[str] = set()
    came = asyncio.Event()

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.TimeoutError):
            words = (await asyncio.wait_for(reader.read(HELLO_BYTES), 2.0)).decode(
                "utf-8", "replace"
            )
            if words.startswith("hpctrain ") and words.endswith("\n"):
                heard.add(words.split()[1])
                came.set()
        writer.close()

    from_s = time.time()
    deadline_s = time.monotonic() + meeting.listen_s
    servers = [
        server for ports in meeting.ranges for port in sample_ports(ports)
        if (server := await _listen(port, welcome)) is not None
    ]  # fmt: skip
    listening = [server.sockets[0].getsockname()[1] for server in servers]
    pairs = [(name, ports) for name in meeting.neighbours for ports in meeting.ranges]
    outcomes = await asyncio.gather(
        *(
            _try_range(meeting.neighbours[name] or name, ports, meeting.own_name, deadline_s)
            for name, ports in pairs
        )
    )
    tried_s = time.time()
    while not heard >= set(meeting.neighbours) and (left_s := deadline_s - time.monotonic()) > 0:
        came.clear()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(came.wait(), left_s)
    for server in servers:
        server.close()
    tries: dict[str, dict[str, str]] = {}
    for (name, ports), outcome in zip(pairs, outcomes, strict=True):
        tries.setdefault(name, {})[f"{ports[0]}-{ports[1]}"] = outcome
    return {
        "from_s": from_s, "tried_s": tried_s, "to_s": time.time(),
        "listening": listening, "heard": sorted(heard), "tries": tries,
    }  # fmt: skip


async def _listen(port: int, welcome: Any) -> asyncio.Server | None:
    """Return a server on all addresses; None where somebody listens there already, as good."""
    both = socket.has_dualstack_ipv6()
    with suppress(OSError):
        sock = socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
        )
        return await asyncio.start_server(welcome, sock=sock)
    return None


async def _try_range(address: str, ports: tuple[int, int], own: str, deadline_s: float) -> str:
    """Connect to the sampled ports until one answers; return what became of it.

    A refusal may mean that the neighbour does not listen yet, so it is tried again until the end.
    What is dropped on the way stays dropped: twice is enough.
    """
    sampled = sample_ports(ports)
    rounds, outcomes = 0, [""]
    while not rounds or (time.monotonic() < deadline_s and (REFUSED in outcomes or rounds < 2)):
        rounds += 1
        outcomes = await asyncio.gather(*(_try_port(address, port, own) for port in sampled))
        if OPEN in outcomes:
            return OPEN
        await asyncio.sleep(AGAIN_S)
    # A host that refuses on one port can be reached; what is dropped on another says more.
    return next((each for each in outcomes if each != REFUSED), REFUSED)


async def _try_port(address: str, port: int, own: str) -> str:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), CONNECT_S)
    except asyncio.TimeoutError:
        return DROPPED
    except socket.gaierror as unknown:
        return f"name unknown there: {unknown.strerror}"
    except OSError as problem:
        # Of a name with several addresses there is one error for all, without a number.
        if problem.errno == errno.ECONNREFUSED or "refused" in str(problem):
            return REFUSED
        return os.strerror(problem.errno) if problem.errno else str(problem)
    with suppress(OSError):
        writer.write(f"hpctrain {own}\n".encode())
        await writer.drain()
        writer.close()
    return OPEN


def judge_firewall(fleet: Fleet) -> Iterator[Verdict]:
    """Name the pairs of hosts of which one cannot connect to the other, and on which ports."""
    for host, answer in fleet.answers.get(CODE, {}).items():
        if answer.error:
            yield not_asked(CODE, host, answer.error)
    known = {host: value for host, value in fleet.answers_of(CODE).items() if value is not None}
    alone = tuple(host for host, value in known.items() if not value["tries"])
    if alone:
        found = "not tried: it is asked after all others, and none of them listens any more"
        yield Verdict(CODE, SKIP, found, hosts=alone)
    tries = [each for each in _tries(known) if each.target not in fleet.unreachable]
    stopped = [each for each in tries if each.is_stopped(known)]
    yield from _describe_stopped(stopped)
    unsure = [each for each in tries if each.outcome == REFUSED and each not in stopped]
    if unsure:
        pairs = list(dict.fromkeys(each.pair for each in unsure))
        found = f"{_name_pairs(pairs, 'to')}: refused, but they did not listen together"
        fix = "hpctrain preflight --only firewall, once more"
        yield Verdict(CODE, WARN, found, fix, "", tuple(dict.fromkeys(sum(pairs, ()))))
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


def _describe_stopped(stopped: Sequence[_Try]) -> Iterator[Verdict]:
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
        target = pairs[0][1]
        fix = (
            f"on {target}: firewall-cmd --zone=trusted --add-source=ADDRESS of {pairs[0][0]}, or "
            f"ufw allow from it; in a cloud a rule of the security group for TCP {words}"
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
