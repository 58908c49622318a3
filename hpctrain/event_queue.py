"""Events off the critical path: a thread writes them, and a step never waits for a reader.

The pipe to the shim holds 64 KiB. A launcher that is stopped, or behind a slow network, would
block whoever writes into it when it is full; here only the thread waits. What does not fit into
the queue meanwhile is dropped, the oldest first, counted, and told as soon as it can be.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from typing import Any

from hpctrain.events import EVENTS_FD_VARIABLE, encode_event, write_event

MAX_EVENTS = 4096
CLOSE_TIMEOUT_S = 5.0


class EventQueue:
    """Takes events and returns at once; flushed when the process ends, also by an error."""

    def __init__(self, max_events: int = MAX_EVENTS) -> None:
        self.dropped = 0
        """Events that were not sent, in all."""
        self._max_events = max_events
        self._untold = 0
        self._waiting: deque[bytes] = deque()
        self._writing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def emit(self, event: str, **fields: Any) -> None:
        """Queue an event; do nothing when no launcher listens."""
        if EVENTS_FD_VARIABLE not in os.environ:
            return
        line = encode_event(event, **fields)  # here: its time is now, not when it is written
        if self._thread is None:
            self._start()
        with self._changed:
            if len(self._waiting) >= self._max_events:
                self._waiting.popleft()
                self.dropped += 1
                self._untold += 1
            self._waiting.append(line)
            self._changed.notify_all()

    def flush(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Return whether all is written, after `timeout_s` at most."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._waiting and not self._writing,
                max(0.0, deadline_s - time.monotonic()),
            )

    def close(self) -> None:
        """Write what waits, and say on stderr what the launcher did not take in time."""
        if self._thread is None or self.flush():
            return
        with self._changed:
            lost = len(self._waiting) + self._writing + self._untold
        print(
            f"warning: events: {lost} did not reach the launcher, which took none for "
            f"{CLOSE_TIMEOUT_S:g} s; the run directory lacks them.", file=sys.stderr, flush=True,
        )  # fmt: skip

    def _start(self) -> None:
        # A daemon, for a writer that is blocked for ever must not keep the process from ending.
        self._thread = threading.Thread(target=self._write, name="hpctrain-events", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                line, untold, self._untold = self._waiting.popleft(), self._untold, 0
                self._writing = True
            if untold:
                write_event(encode_event("events_dropped", count=untold))
            write_event(line)
            with self._changed:
                self._writing = False
                self._changed.notify_all()
