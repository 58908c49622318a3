"""Are the links as they were asked to be? Measured between nodes, by short transfers of our own.

Sockets are opened inside the nodes' network namespaces by one thread of this process, so nothing
has to be started there. One pair of nodes is measured for each kind of link there is.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hpctrain.clusters.lab.find import inside
from hpctrain.clusters.lab.names import Space
from hpctrain.clusters.lab.plan import LabNode, LabPlan
from hpctrain.clusters.lab.shape import (
    Shape,
    render_bandwidth,
    render_latency,
    render_loss,
)
from hpctrain.clusters.provider import Console

PINGS, PING_TIMEOUT_S = 21, 0.2
TRANSFER_S, LEAST_TRANSFER_ROUND_TRIPS = 0.35, 12
MOST_TRANSFER_BYTES = 4 << 30  # never reached before the time is over, but by a bug
CHUNK_S, SMALLEST_CHUNK_BYTES, LARGEST_CHUNK_BYTES = 0.01, 1 << 14, 4 << 20
COUNTED_PACKETS, COUNTING_S, COUNTED_BYTES = 4000, 0.4, 100
HEADER_BYTES = 42  # Ethernet, IP and UDP
MOST_PAIRS = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """What one pair showed; None where it was not measured, or nothing arrived.

    Args:
        round_trip_s: median.
        bit_per_s: of one TCP connection, what programs get of it.
        loss: share of packets that did not arrive, of `counted`.
    """

    round_trip_s: float | None
    bit_per_s: float | None
    loss: float | None
    counted: int = 0


def measure_lab(plan: LabPlan, console: Console) -> Iterator[str]:
    """Measure, and yield what was asked and what is, in lines."""
    pairs = choose_pairs(plan.nodes)
    if not pairs:
        return
    with console.working("measuring the links"):
        results = [measure_pair(plan.name, *pair) for pair in pairs]
    yield f"  {'link':<18} {'':<10} {'bandwidth':<14} {'round trip':<12} loss"
    for (sender, receiver), found in zip(pairs, results, strict=True):
        bandwidth, round_trip_s, loss = expected(sender.shape, receiver.shape)
        yield (
            f"  {sender.name + ' to ' + receiver.name:<18} {'asked':<10} "
            f"{render_bandwidth(bandwidth):<14} {render_latency(round_trip_s):<12} "
            f"{render_loss(loss)}"
        )
        counted = f" (of {found.counted} packets)" if found.loss is not None else ""
        yield (
            f"  {'':<18} {'measured':<10} "
            f"{render_bandwidth(found.bit_per_s) if found.bit_per_s else 'nothing':<14} "
            f"{render_latency(found.round_trip_s) if found.round_trip_s else 'no answer':<12} "
            f"{'-' if found.loss is None else render_loss(found.loss)}{counted}"
        )


def choose_pairs(nodes: tuple[LabNode, ...]) -> list[tuple[LabNode, LabNode]]:
    """Return one pair for each kind of link: who sends, who receives."""
    kinds = {node.shape: node for node in reversed(nodes)}
    if len(nodes) < 2:
        return []
    pairs = []
    for sender in sorted(kinds.values(), key=lambda node: node.address):
        others = [node for node in nodes if node is not sender]
        # To one that does not hide what the sender's own link does.
        pairs.append((sender, max(others, key=lambda node: _rate(node.shape))))
    return pairs[:MOST_PAIRS]


def expected(sender: Shape, receiver: Shape) -> tuple[float | None, float, float]:
    """Return the bandwidth, the round trip's latency and the loss that a pair should show.

    >>> expected(Shape(1e9, 0.001, 0.01), Shape(1e8))
    (100000000.0, 0.001, 0.01)
    """
    slower = min(_rate(sender), _rate(receiver))
    bandwidth = None if slower == float("inf") else slower
    return bandwidth, (sender.latency_s or 0.0) + (receiver.latency_s or 0.0), sender.loss or 0.0


def measure_pair(lab: str, sender: LabNode, receiver: LabNode) -> Measured:
    """Measure the link from one node to another."""
    rate, round_trip_s, loss = expected(sender.shape, receiver.shape)
    timeout_s = PING_TIMEOUT_S + 2 * round_trip_s
    with (
        _socket(lab, receiver, socket.SOCK_DGRAM) as there,
        _socket(lab, sender, socket.SOCK_DGRAM) as here,
    ):
        here.connect((receiver.address, there.getsockname()[1]))
        there.connect((sender.address, here.getsockname()[1]))
        pings = [_ping(here, there, timeout_s) for _ in range(PINGS)]
        known = [seconds for seconds in pings if seconds is not None]
        # The first one looks for the address as well.
        median_s = statistics.median(known[1:] or known) if known else None
        lost, counted = _count(here, there, rate, timeout_s) if loss and known else (None, 0)
    bit_per_s = _transfer(lab, sender, receiver, round_trip_s) if known else None
    return Measured(median_s, bit_per_s, lost, counted)


def _ping(here: socket.socket, there: socket.socket, timeout_s: float) -> float | None:
    begun_s, word = time.monotonic(), random.randbytes(8)
    for end, other in ((here, there), (there, here)):
        end.send(word)
        while True:
            left_s = begun_s + timeout_s - time.monotonic()
            if not select.select([other], [], [], max(0.0, left_s))[0]:
                return None
            if other.recv(64) == word:  # else one that was late
                break
    return time.monotonic() - begun_s


def _count(
    here: socket.socket, there: socket.socket, rate: float | None, timeout_s: float
) -> tuple[float, int]:
    """Return the share of packets that are lost, and of how many; sent evenly, at a tenth of
    the bandwidth, so that none is lost for want of a buffer."""
    packet_bits = 8 * (COUNTED_BYTES + HEADER_BYTES)
    fitting = COUNTING_S * (rate or 1e9) / 10 / packet_bits
    count = max(100, min(COUNTED_PACKETS, int(fitting)))
    there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    payload, arrived = bytes(COUNTED_BYTES), 0
    begun_s = time.monotonic()
    for number in range(count):
        here.send(payload)
        ahead_s = begun_s + number * COUNTING_S / count - time.monotonic()
        if ahead_s > 0.001:
            time.sleep(ahead_s)
    there.settimeout(timeout_s)
    try:
        while arrived < count:
            if len(there.recv(2 * COUNTED_BYTES)) == COUNTED_BYTES:
                arrived += 1
    except TimeoutError:
        pass
    return (count - arrived) / count, count


def _transfer(lab: str, sender: LabNode, receiver: LabNode, round_trip_s: float) -> float | None:
    """Return what one TCP connection carries once it is under way, in bits per second."""
    length_s = TRANSFER_S + LEAST_TRANSFER_ROUND_TRIPS * round_trip_s
    rate = expected(sender.shape, receiver.shape)[0] or float("inf")
    # Large enough that the kernel does the work, small enough for a slow link.
    chunk_bytes = int(min(max(rate / 8 * CHUNK_S, SMALLEST_CHUNK_BYTES), LARGEST_CHUNK_BYTES))
    with (
        _socket(lab, receiver, socket.SOCK_STREAM) as listener,
        _socket(lab, sender, socket.SOCK_STREAM) as here,
    ):
        listener.listen(1)
        here.settimeout(length_s + 2)
        try:
            here.connect((receiver.address, listener.getsockname()[1]))
            there, _ = listener.accept()
        except OSError:
            return None
        feeder = threading.Thread(target=_feed, args=(here, chunk_bytes), daemon=True)
        with there:
            _limit_waits(there, length_s + 1)
            _limit_waits(here, length_s + 1)
            feeder.start()
            try:
                return _drain(there, length_s, chunk_bytes)
            finally:
                here.shutdown(socket.SHUT_RDWR)
                feeder.join()


def _limit_waits(end: socket.socket, limit_s: float) -> None:
    """Have the kernel end a wait: Python's own time limit would make it hand over small pieces."""
    limit = struct.pack("ll", int(limit_s), int(limit_s % 1 * 1e6))
    end.settimeout(None)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        end.setsockopt(socket.SOL_SOCKET, option, limit)


def _feed(here: socket.socket, chunk_bytes: int) -> None:
    chunk, sent = bytes(chunk_bytes), 0
    with contextlib.suppress(OSError):
        while sent < MOST_TRANSFER_BYTES:
            sent += here.send(chunk)


def _drain(there: socket.socket, length_s: float, chunk_bytes: int) -> float | None:
    """Count what arrives in the later two thirds: first come a full bucket and a slow start."""
    begun_s = time.monotonic()
    buffer, counted, counting_since_s = bytearray(chunk_bytes), 0, 0.0
    while time.monotonic() < begun_s + length_s:
        try:
            received = there.recv_into(buffer, chunk_bytes, socket.MSG_WAITALL)
        except OSError:
            break
        if not received:
            break
        if counting_since_s:
            counted += received
        elif time.monotonic() > begun_s + length_s / 3:
            counting_since_s = time.monotonic()
    passed_s = time.monotonic() - counting_since_s
    return 8 * counted / passed_s if counting_since_s and counted else None


def _socket(lab: str, node: LabNode, kind: socket.SocketKind) -> socket.socket:
    with inside(Space(lab, node.name)):
        opened = socket.socket(socket.AF_INET, kind)
    opened.bind((node.address, 0))
    return opened


def _rate(shape: Shape) -> float:
    return shape.bandwidth_bit_per_s or float("inf")
