"""The launcher's own signals: heard between two turns of its loop, or between two attempts."""

from __future__ import annotations

import os
import selectors
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What schedulers send before they end a job; ranks that can save are asked to by SIGUSR1.
SAVE_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopAsked(BaseException):
    """A signal came while no attempt was under way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def raising_stop_asked() -> Iterator[None]:
    """Have a stop or save signal raise StopAsked, wherever it finds us.

    While an attempt runs, its SignalInbox hears them in place of this. What is ignored stays
    ignored.
    """

    def ask(number: int, frame: object) -> None:
        raise StopAsked(number)

    watched = {*STOP_SIGNALS, *SAVE_SIGNALS}
    watched -= {n for n in watched if signal.getsignal(n) is signal.SIG_IGN}
    before = {number: signal.signal(number, ask) for number in watched}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class SignalInbox:
    """Hands signals to the loop, each as often as it came.

    Args:
        on_signal: called from the loop with each stop or save signal.
    """

    def __init__(self, selector: selectors.BaseSelector, on_signal: Callable[[int], None]) -> None:
        self._selector = selector
        self._on_signal = on_signal
        self._stop_signals_seen = 0
        self._old_handlers: dict[int, Any] = {}

    def watch(self) -> None:
        """Take over: SIGCHLD too, so that the loop wakes when mpirun ends."""
        self._reader, self._writer = os.pipe()
        for descriptor in (self._reader, self._writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._selector.register(self._reader, selectors.EVENT_READ, self._read)
        # What is ignored stays ignored: nohup, or a shell's background job.
        watched = {*STOP_SIGNALS, *SAVE_SIGNALS}
        watched -= {n for n in watched if signal.getsignal(n) is signal.SIG_IGN}
        self._old_handlers = {
            number: signal.signal(number, self._count) for number in (*watched, signal.SIGCHLD)
        }

    def unwatch(self) -> None:
        """Give back what :meth:`watch` has taken, and hand over what has come meanwhile.

        A signal that comes while this runs waits for the old handlers: none is lost.
        """
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, self._old_handlers)
        try:
            for number, handler in self._old_handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(-1)
            with suppress(BlockingIOError):
                while True:
                    self._read()
            self._selector.unregister(self._reader)
            os.close(self._reader)
            os.close(self._writer)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _read(self) -> None:
        for number in os.read(self._reader, 64):
            if number in (*STOP_SIGNALS, *SAVE_SIGNALS):
                self._on_signal(number)

    def _count(self, number: int, frame: object) -> None:
        """Break off, at the third stop signal, even a write that blocks for ever."""
        if number in STOP_SIGNALS:
            self._stop_signals_seen += 1
            if self._stop_signals_seen > 2:
                raise KeyboardInterrupt
