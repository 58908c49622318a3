"""A rank's way to its launcher: frames out and in, and how it is noticed that nobody is there."""

from __future__ import annotations

import os
import selectors
import socket
import sys
from contextlib import suppress
from typing import Any

from hpctrain.launch.channel import (
    SECRET_VARIABLE,
    STDIO_MARK,
    ChannelError,
    LineBuffer,
    connect,
    decode_frame,
    encode_frame,
)
from hpctrain.launch.rank_env import RankIdentity
from hpctrain.launch.rank_life import is_cut_off

LAUNCHER = "launcher"  # the connection's name in the selector


class Uplink:
    """The connection to the launcher; without one, mpirun's forwarding of standard output.

    Args:
        address: ``host:port`` of the launcher.
        selector: gets the connection, as LAUNCHER.
        cut_off_s: how long the launcher's kernel may not answer.
    """

    def __init__(
        self, address: str, rank: RankIdentity, selector: selectors.BaseSelector, cut_off_s: float
    ) -> None:
        self._rank, self._selector, self._cut_off_s = rank.rank, selector, cut_off_s
        self._connection: socket.socket | None = None
        self._lines = LineBuffer()
        self._unsent = bytearray()
        hello = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "size": rank.size,
            "local_rank": rank.local_rank,
        }
        try:
            made = connect(address, os.environ.get(SECRET_VARIABLE, ""), rank.rank, hello)
        except (OSError, ChannelError) as problem:
            # mpirun's own forwarding still works: say why it is used, then use it.
            self.send("hello", **hello, fallback=f"{address}: {problem}")
            return
        self._connection = made
        selector.register(made, selectors.EVENT_READ, LAUNCHER)

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    @property
    def unsent_bytes(self) -> int:
        """How much waits for a launcher that takes it slowly."""
        return len(self._unsent)

    def send(self, kind: str, **fields: object) -> None:
        """Send a frame, now or as soon as the launcher takes it."""
        if self._connection is None:
            fields["rank"] = self._rank
            with suppress(OSError):  # mpirun is gone too: there is nobody left to tell
                sys.stdout.buffer.write(STDIO_MARK + encode_frame(kind, **fields))
                sys.stdout.buffer.flush()
            return
        self._unsent += encode_frame(kind, **fields)
        self.write_out()

    def write_out(self) -> None:
        """Send what the socket takes of what waits."""
        if self._connection is None or not self._unsent:
            return
        try:
            sent = self._connection.send(self._unsent)
            del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()  # the next read from the launcher finds it gone
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._selector.modify(self._connection, events, LAUNCHER)

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the frames that have come; None where the launcher is gone."""
        assert self._connection is not None
        try:
            data = self._connection.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        return [decode_frame(line) for line in self._lines.feed(data)] if data else None

    def is_cut_off(self) -> bool:
        """Return whether the launcher's host no longer answers.

        A launcher that is only stopped, or waits for a pager, is still answered for by its kernel.
        """
        return self._connection is not None and is_cut_off(self._connection, self._cut_off_s)

    def drop(self) -> None:
        """Forget a launcher that is gone."""
        if self._connection is not None:
            self._selector.unregister(self._connection)
            self._connection.close()
            self._connection = None
            self._unsent.clear()

    def close(self) -> None:
        """Close in order: what was sent still arrives."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)
            self._connection.close()
