"""The launching machine's end of the way back: whoever connects is told this machine's time."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LINE_BYTES = 200
SILENCE_S = 10.0
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the launching machine listens, and the word that gets an answer."""

    address: str
    port: int
    word: str

    def as_json(self) -> dict[str, Any]:
        return {"address": self.address, "port": self.port, "word": self.word}


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 1024
    word = b""


class _Handler(socketserver.StreamRequestHandler):
    timeout = SILENCE_S
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            for _ in range(ROUNDS):
                if self.rfile.readline(LINE_BYTES).strip() != self.server.word:
                    return
                self.wfile.write(f"{time.time():.6f}\n".encode())


@contextlib.contextmanager
def listening(address: str) -> Iterator[Listening | None]:
    """Listen on an address, on a port that is free, for the length of a block.

    Yields None where this machine cannot listen there.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = type("_FamilyServer", (_Server,), {"address_family": family})
    try:
        server = kind((address, 0), _Handler)
    except OSError:
        yield None
        return
    word = os.urandom(16).hex()
    server.word = word.encode()
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield Listening(address, server.server_address[1], word)
    finally:
        server.shutdown()
        server.server_close()
