"""A node's cable as a process, for kernels without netem: it delays and loses what a node sends.

::

    python -m hpctrain.clusters.lab.cable NODE_NAMESPACE eth0 SWITCH_NAMESPACE to-n1 DELAY_S LOSS \
        BIT_PER_S

It owns both ends, a TAP interface in the node and one at the switch, and hands frames across.
The kernel gives it packets of up to 64 KiB whole, checksums not yet made, just as it gives them
to a network card, and takes them back the same way (virtio's header in front says what is
missing): that is what makes it fast. What the node hears waits for the line only.

It also keeps to the line's rate, to the byte and each way: a token bucket in its place would let
what follows a pause go out for nothing, and rounds of an exchange over such a link are all pauses.

It starts with one line, "ready", and ends with a signal, or with either namespace.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import random
import select
import struct
import sys
import time

from hpctrain.clusters.lab.find import inside
from hpctrain.clusters.lab.names import parse_space

# linux/if_tun.h
TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 0x01, 0x02, 0x04
VNET_HEADER_BYTES = 10
LARGEST_FRAME_BYTES = VNET_HEADER_BYTES + 14 + 4 + 65_535
FRAMES_AT_ONCE = 64  # before the other direction has its turn
# As a long fat network's buffers: beyond that the sender is told by a loss.
MOST_BYTES_IN_FLIGHT = 256 << 20


def open_tap(space_name: str, link: str) -> int:
    """Make a TAP interface in a network namespace; it ends with the descriptor.

    Raises:
        OSError: there is no such namespace, or the interface cannot be made.
    """
    space = parse_space(space_name)
    assert space is not None, space_name
    with inside(space):
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", link.encode(), flags))
    fcntl.ioctl(tap, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_BYTES))
    fcntl.ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    return tap


class Way:
    """One direction: a line that carries one frame after the other, and then takes its time.

    Args:
        to: where frames come out.
        delay_s: how long a frame is under way once it is on the line.
        bit_per_s: the line's rate; 0 for none.
    """

    def __init__(self, to: int, delay_s: float, bit_per_s: float) -> None:
        self._to, self._delay_s = to, delay_s
        self._byte_s = 8 / bit_per_s if bit_per_s else 0.0
        self._free_at_s = 0.0
        self._waiting: collections.deque[tuple[float, bytes]] = collections.deque()
        self._waiting_bytes = 0

    def take(self, frame: bytes, now_s: float) -> None:
        """Put a frame on the line; drop it where too much waits."""
        if not self._byte_s and not self._delay_s:
            _put(self._to, frame)
        elif self._waiting_bytes + len(frame) <= MOST_BYTES_IN_FLIGHT:
            bytes_ = len(frame) - VNET_HEADER_BYTES
            self._free_at_s = max(now_s, self._free_at_s) + bytes_ * self._byte_s
            self._waiting.append((self._free_at_s + self._delay_s, frame))
            self._waiting_bytes += len(frame)

    def deliver(self, now_s: float) -> None:
        """Let out what has arrived."""
        while self._waiting and self._waiting[0][0] <= now_s:
            frame = self._waiting.popleft()[1]
            self._waiting_bytes -= len(frame)
            _put(self._to, frame)

    def next_s(self) -> float:
        """Return when the next frame arrives; infinity where none is under way."""
        return self._waiting[0][0] if self._waiting else float("inf")


def carry(node: int, switch: int, delay_s: float, loss: float, bit_per_s: float) -> None:
    """Hand frames across for ever.

    Args:
        node, switch: the ends.
        delay_s: of what the node sends; likewise `loss`, a probability.
        bit_per_s: each way; 0 for no limit.

    Raises:
        OSError: an end is gone.
    """
    ways = {node: Way(switch, delay_s, bit_per_s), switch: Way(node, 0.0, bit_per_s)}
    ready = select.epoll()
    for end in ways:
        ready.register(end, select.EPOLLIN)
    while True:
        next_s = min(way.next_s() for way in ways.values())
        pause_s = max(0.0, next_s - time.monotonic()) if next_s < float("inf") else -1.0
        for end, _ in _wait(ready, pause_s):
            now_s = time.monotonic()
            for _ in range(FRAMES_AT_ONCE):
                try:
                    frame = os.read(end, LARGEST_FRAME_BYTES)
                except BlockingIOError:
                    break
                if end == switch or not loss or random.random() >= loss:
                    ways[end].take(frame, now_s)
        now_s = time.monotonic()
        for way in ways.values():
            way.deliver(now_s)


def _wait(ready: select.epoll, pause_s: float) -> list[tuple[int, int]]:
    """Wait to the microsecond: epoll's own limit is rounded up to milliseconds."""
    if pause_s < 0:
        return ready.poll()
    if not select.select([ready.fileno()], [], [], pause_s)[0]:
        return []
    return ready.poll(0)


def _put(end: int, frame: bytes) -> None:
    try:
        os.write(end, frame)
    except (BlockingIOError, InterruptedError):
        pass  # its queue is full: lost, as at any switch
    except OSError as problem:
        # EIO: the interface is down. EINVAL: a frame that no network card would take.
        if problem.errno not in (5, 22):
            raise


def _be_punctual() -> None:
    """Come before programs that compute: ranks may fill all cores, and a cable must not wait."""
    import ctypes

    ctypes.CDLL(None).prctl(29, 1000)  # PR_SET_TIMERSLACK of prctl(2): 1 us in place of 50
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:  # control groups may forbid it
        with contextlib.suppress(OSError):
            os.nice(-20)


def main() -> None:
    node_space, node_link, switch_space, port, delay_s, loss, bit_per_s = sys.argv[1:]
    node, switch = open_tap(node_space, node_link), open_tap(switch_space, port)
    _be_punctual()
    print("ready", flush=True)
    carry(node, switch, float(delay_s), float(loss), float(bit_per_s))


if __name__ == "__main__":
    main()
