"""The channel between the rank shims and the launcher, apart from MPI.

One JSON object a line, both ways, over one TCP connection a rank. The launcher greets with a
random nonce; the shim proves with an HMAC that it knows the run's secret, which reached it in
its environment. That keeps strangers and other runs out; it is no encryption, so whoever can
read the cluster's network can read the training's output.

Where a host cannot reach the launcher, the same lines travel through mpirun's own forwarding
of standard output, each behind :data:`STDIO_MARK`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import time
from typing import Any

SECRET_VARIABLE = "HPCTRAIN_SECRET"
CHANNEL_VARIABLE = "HPCTRAIN_CHANNEL"
STDIO_MARK = b"\x1ehpctrain "
MAX_LINE_BYTES = 8 << 20
OUTPUT_CHUNK_BYTES = 32768
# mpirun may cut a rank's output where a pipe's atomic write ends (PIPE_BUF, 4096): stay below,
# also where every byte becomes six characters.
STDIO_CHUNK_BYTES = 512
HANDSHAKE_TIMEOUT_S = 5.0
HEARTBEAT_INTERVAL_S = 5.0  # of each shim
CONNECT_TIMEOUT_S = 5.0


class ChannelError(Exception):
    """The other side does not speak as it should."""


def new_secret() -> str:
    """Return a secret for one attempt of one run."""
    return os.urandom(32).hex()


def prove(secret: str, nonce: str, rank: int) -> str:
    """Return the proof that whoever holds `secret` gives for `nonce`."""
    return hmac.new(secret.encode(), f"{nonce}/{rank}".encode(), hashlib.sha256).hexdigest()


def is_proven(secret: str, nonce: str, rank: int, proof: str) -> bool:
    """Return whether `proof` was made with `secret` for this nonce and rank."""
    return hmac.compare_digest(prove(secret, nonce, rank).encode(), proof.encode(errors="replace"))


def encode_frame(kind: str, **fields: Any) -> bytes:
    """Return one frame as a line. Bytes travel as Latin-1 text, so any output survives."""
    return json.dumps({"kind": kind, **fields}, separators=(",", ":")).encode() + b"\n"


def decode_frame(line: bytes) -> dict[str, Any]:
    """Return the frame in a line.

    Raises:
        ChannelError: the line is no frame.
    """
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise ChannelError(f"no JSON, got {line[:60]!r}") from problem
    if not isinstance(frame, dict) or not isinstance(frame.get("kind"), str):
        raise ChannelError(f"no frame, got {line[:60]!r}")
    return frame


class LineBuffer:
    """Cut a byte stream into whole lines."""

    def __init__(self, limit_bytes: int = MAX_LINE_BYTES) -> None:
        self._rest = b""
        self._limit_bytes = limit_bytes

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, without their ends.

        Raises:
            ChannelError: a line is longer than the limit.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if max(map(len, (*lines, self._rest))) > self._limit_bytes:
            raise ChannelError(f"a line of more than {self._limit_bytes} bytes")
        return lines

    def flush(self) -> list[bytes]:
        """Return what is left of a last line without an end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def connect(address: str, secret: str, rank: int, hello: dict[str, Any]) -> socket.socket:
    """Connect to the launcher as a rank's shim.

    Args:
        address: ``host:port`` of the launcher, an IPv6 host in brackets.
        hello: what to say of this rank besides its number.

    Raises:
        OSError: the launcher cannot be reached.
        ChannelError: something else listens there.
    """
    host, _, port = address.rpartition(":")
    deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S)
    keep_alive(connection)
    greeting = b""
    while not greeting.endswith(b"\n"):
        connection.settimeout(max(0.01, deadline_s - time.monotonic()))
        part = connection.recv(4096)
        if not part or len(greeting) > 4096:
            raise ChannelError("the launcher closed the connection before it greeted")
        greeting += part
    nonce = decode_frame(greeting).get("nonce")
    if not isinstance(nonce, str):
        raise ChannelError("no greeting of an hpctrain launcher")
    proof = prove(secret, nonce, rank)
    connection.sendall(encode_frame("hello", rank=rank, proof=proof, **hello))
    connection.setblocking(False)
    return connection


def keep_alive(connection: socket.socket) -> None:
    """Have the kernel notice within about 15 s that a silent peer's host has vanished.

    No TCP_USER_TIMEOUT: it would also end a connection to a launcher that only waits, for
    whoever reads its output (a pager, a stopped terminal).
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, seconds in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 5)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
