"""What the kernel says of a program, and of the way to the launcher. The shim imports this."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

TCP_INFO = 11  # linux/tcp.h
# struct tcp_info of linux/tcp.h: eight bytes, then 32-bit numbers.
_TCP_INFO = struct.Struct("=8B24I")
_UNACKED, _LAST_ACK_MS = 8 + 4, 8 + 12
STOPPED_STATE = "T"  # of /proc/PID/stat, proc(5); "t", stopped by a debugger, is somebody's wish


def process_state(pid: int) -> str:
    """Return the state letter of ``/proc/PID/stat`` (proc(5)): R, S, D, T …; "" if it is gone."""
    return _read_state(pid)[0]


def group_state(leader: int, pids: Iterable[int]) -> str:
    """Return the state of a process group: "T" where one of it is stopped, else its leader's.

    A shell that started the program only waits for it, whatever becomes of it.

    Args:
        pids: where to look for the others of the group.
    """
    state = process_state(leader)
    if state == STOPPED_STATE:
        return state
    states = (_read_state(pid) for pid in pids if pid != leader)
    return STOPPED_STATE if (STOPPED_STATE, leader) in states else state


def _read_state(pid: int) -> tuple[str, int]:
    """Return a process's state letter and its process group; ("", 0) if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            # The name before it, in parentheses, may hold anything.
            state, _, group = file.read().rpartition(")")[2].split()[:3]
            return state, int(group)
    except (OSError, ValueError):
        return "", 0


def is_cut_off(connection: socket.socket, limit_s: float) -> bool:
    """Return whether the other end's kernel has not acknowledged what was sent for `limit_s`.

    That is a host or a link that is gone. A process there that merely does not read is not: its
    kernel acknowledges, also while its window is closed.
    """
    try:
        info = _TCP_INFO.unpack(connection.getsockopt(socket.IPPROTO_TCP, TCP_INFO, _TCP_INFO.size))
    except (OSError, struct.error):
        return False
    return info[_UNACKED] > 0 and info[_LAST_ACK_MS] > limit_s * 1000
