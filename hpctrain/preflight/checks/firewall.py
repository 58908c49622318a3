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
    answers = fleet.answers_of(CODE)
    for host, answer in fleet.answers.get(CODE, {}).items():
        if answer.error:
            yield not_asked(CODE, host, answer.error)
    known = {host: value for host, value in answers.items() if value is not None}
    closed: dict[tuple[str, str], list[tuple[str, str]]] = {}
    unsure: dict[tuple[str, str], list[tuple[str, str]]] = {}
    reached: set[str] = set()
    ranges: set[str] = set()
    for host, value in known.items():
        if not value["tries"]:
            found = "not tried: it is asked after all others, and none of them listens any more"
            yield Verdict(CODE, SKIP, found, hosts=(host,))
        for neighbour, tries in value["tries"].items():
            if neighbour in fleet.unreachable:
                continue
            for ports, outcome in tries.items():
                ranges.add(ports)
                if outcome == OPEN:
                    reached.add(host)
                elif outcome == REFUSED and not _was_refused(value, known.get(neighbour), ports):
                    unsure.setdefault((ports, outcome), []).append((host, neighbour))
                else:
                    closed.setdefault((ports, outcome), []).append((host, neighbour))
    yield from _describe_closed(closed)
    for (ports, _), pairs in unsure.items():
        found = f"{_name_pairs(pairs, 'to')}, TCP {ports}: refused, but they did not listen together"
        yield Verdict(CODE, WARN, found, "hpctrain preflight --only firewall", "", _ends(pairs))
    fine = reached - {host for pairs in (*closed.values(), *unsure.values()) for host, _ in pairs}
    if fine:
        found = f"connect to their neighbours on TCP {', '.join(_by_number(ranges))}"
        yield Verdict(CODE, PASS, found, hosts=tuple(host for host in known if host in fine))


def _was_refused(value: Mapping[str, Any], other: Mapping[str, Any] | None, ports: str) -> bool:
    """Return whether the neighbour listened in a range while it was tried there."""
    if other is None:
        return False
    low, high = (int(end) for end in ports.split("-"))
    listened = any(low <= port <= high for port in other["listening"])
    together_s = min(value["tried_s"], other["to_s"]) - max(value["from_s"], other["from_s"])
    return listened and together_s >= TOGETHER_S


def _describe_closed(closed: Mapping[tuple[str, str], list[tuple[str, str]]]) -> Iterator[Verdict]:
    """Yield a verdict for each set of pairs that fail alike, their ranges joined."""
    joined: dict[tuple[tuple[tuple[str, str], ...], str], list[str]] = {}
    for (ports, outcome), pairs in closed.items():
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


def _ends(pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(host for pair in pairs for host in pair))


def _by_number(ranges: Any) -> list[str]:
    return sorted(ranges, key=lambda ports: int(ports.split("-")[0]))


FIREWALL = Check(CODE, judge_firewall, (MEETING,), needs_hosts=True)
