"""SIGUSR1: save at the next step, then leave. The launcher sends it, or a scheduler does.

The rank shim starts the trainer with the signal held back (blocked), because it would end a
Python that has not yet said what to do about it; :func:`hear_save_signal` lets it through.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

SAVE_SIGNAL = signal.SIGUSR1


def hear_save_signal() -> Callable[[], bool]:
    """Listen from now on; return a function that says whether the signal has come."""
    heard = []
    signal.signal(SAVE_SIGNAL, lambda *_: heard.append(True))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {SAVE_SIGNAL})
    return lambda: bool(heard)
