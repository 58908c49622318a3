"""The launcher's end of the channel: accept shims, check that they are ours, hand on frames."""

from __future__ import annotations

import errno
import os
import resource
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

from hpctrain.errors import LaunchError
from hpctrain.launch.channel import (
    HANDSHAKE_TIMEOUT_S,
    ChannelError,
    LineBuffer,
    decode_frame,
    encode_frame,
    is_proven,
    keep_alive,
)

FrameHandler = Callable[[int, dict[str, Any]], None]
LostHandler = Callable[[int], None]


class _Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.lines = LineBuffer()
        self.nonce = os.urandom(16).hex()
        self.rank: int | None = None
        self.prove_by_s = time.monotonic() + HANDSHAKE_TIMEOUT_S


class ChannelServer:
    """Listen for the shims of one attempt.

    Args:
        bind_address: the address to listen on; a free port is chosen.
        secret: what a shim must know.
        size: number of ranks.
        on_frame: called with (rank, frame) for every frame, the ``hello`` first.
        on_lost: called with the rank when its connection has closed.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        bind_address: str,
        secret: str,
        size: int,
        on_frame: FrameHandler,
        on_lost: LostHandler,
    ) -> None:
        self._selector = selector
        self._secret = secret
        self._size = size
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._connections: set[_Connection] = set()
        self._by_rank: dict[int, _Connection] = {}
        family = socket.AF_INET6 if ":" in bind_address else socket.AF_INET
        self._listener = socket.create_server((bind_address, 0), family=family, backlog=1024)
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)
        port = self._listener.getsockname()[1]
        self.address = (
            f"[{bind_address}]:{port}" if ":" in bind_address else f"{bind_address}:{port}"
        )

    @property
    def connected_ranks(self) -> frozenset[int]:
        return frozenset(self._by_rank)

    def send_signal(self, number: int) -> None:
        """Have every connected shim pass a signal on to its program."""
        self._tell_all(encode_frame("signal", number=number))

    def ask_for_stacks(self) -> None:
        """Have every connected shim say where its program is, by a ``stacks`` frame."""
        self._tell_all(encode_frame("stacks"))

    def _tell_all(self, line: bytes) -> None:
        for connection in list(self._by_rank.values()):
            try:
                connection.sock.sendall(line)
            except OSError:
                self._drop(connection)

    def drop_unproven(self) -> None:
        """Close connections that did not prove in time to be ours."""
        now_s = time.monotonic()
        for connection in [c for c in self._connections if c.rank is None and c.prove_by_s < now_s]:
            self._drop(connection)

    def close(self) -> None:
        """Close everything; shims whose programs still run will end them."""
        for connection in list(self._connections):
            self._drop(connection, tell=False)
        self._selector.unregister(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as problem:
            if problem.errno in (errno.EMFILE, errno.ENFILE):
                raise LaunchError(
                    f"channel: no file descriptor left for rank {len(self._connections)}, got a "
                    f"limit of {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}; expected 3 a rank. "
                    "Raise it: ulimit -n"
                ) from problem
            return  # the peer has gone already
        sock.setblocking(False)
        keep_alive(sock)
        connection = _Connection(sock)
        self._connections.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(connection))
        try:
            sock.send(encode_frame("nonce", nonce=connection.nonce))
        except OSError:
            self._drop(connection)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        try:
            for line in connection.lines.feed(data):
                self._take(connection, decode_frame(line))
        except ChannelError:
            self._drop(connection)

    def _take(self, connection: _Connection, frame: dict[str, Any]) -> None:
        if connection.rank is None:
            rank, proof = frame.get("rank"), frame.get("proof")
            if frame["kind"] != "hello" or not isinstance(rank, int) or not isinstance(proof, str):
                raise ChannelError("expected a hello")
            if not is_proven(self._secret, connection.nonce, rank, proof):
                raise ChannelError("wrong secret")
            if not 0 <= rank < self._size or rank in self._by_rank:
                raise ChannelError(f"rank {rank} is out of range or connected already")
            connection.rank = rank
            self._by_rank[rank] = connection
        self._on_frame(connection.rank, frame)

    def _drop(self, connection: _Connection, *, tell: bool = True) -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._selector.unregister(connection.sock)
        connection.sock.close()
        if connection.rank is not None:
            del self._by_rank[connection.rank]
            if tell:
                self._on_lost(connection.rank)


class PipeReader:
    """Read lines from a pipe until it closes."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        descriptor: int,
        lines: LineBuffer,
        on_line: Callable[[bytes], None],
    ) -> None:
        self.selector, self.descriptor = selector, descriptor
        self.lines, self.on_line = lines, on_line

    def read(self) -> None:
        try:
            data = os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self.selector.unregister(self.descriptor)
            return
        for line in self.lines.feed(data):
            self.on_line(line)
