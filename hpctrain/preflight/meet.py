"""Listen on a few ports for a moment, and try those of others: finds a firewall between hosts."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from contextlib import suppress
from typing import Any, NamedTuple

from hpctrain.preflight.meetings import sample_ports

CONNECT_S = 3.0  # with one repeated SYN
AGAIN_S = 0.3
HELLO_BYTES = 300
OPEN, DROPPED, REFUSED = "open", "timed out", "refused"


class Meeting(NamedTuple):
    """Whom one host is to meet.

    Args:
        ranges: of ports, first and last.
        neighbours: name → address, None where the name must do.
        listen_s: how long at most.
    """

    own_name: str
    ranges: list[tuple[int, int]]
    neighbours: dict[str, str | None]
    listen_s: float


async def meet(meeting: Meeting) -> dict[str, Any]:
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
        if (server := await listen(port, welcome)) is not None
    ]  # fmt: skip
    listening = [server.sockets[0].getsockname()[1] for server in servers]
    pairs = [(name, ports) for name in meeting.neighbours for ports in meeting.ranges]
    outcomes = await asyncio.gather(
        *(
            try_range(meeting.neighbours[name] or name, ports, meeting.own_name, deadline_s)
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


async def listen(port: int, welcome: Any) -> asyncio.Server | None:
    """Return a server on all addresses; None where somebody listens there already, as good."""
    both = socket.has_dualstack_ipv6()
    with suppress(OSError):
        sock = socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
        )
        return await asyncio.start_server(welcome, sock=sock)
    return None


async def try_range(address: str, ports: tuple[int, int], own: str, deadline_s: float) -> str:
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
