"""How a rank shows that it lives: a few numbers in memory that its shim reads now and then.

The shim makes a page of memory, which its program inherits (``HPCTRAIN_PULSE_FD``); the trainer, or
:func:`hpctrain.report_step`, writes there what it is at. A write is a copy of 48 bytes, without a
system call, so it is always on; a program that never writes has no pulse, and counts as such.

The rank shim imports this module, so it imports little.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from contextlib import suppress
from typing import NamedTuple

PULSE_FD_VARIABLE = "HPCTRAIN_PULSE_FD"
PAGE_BYTES = 4096
MOST_READS = 8
PHASES = (
    "", "start", "data", "forward", "backward", "exchange", "optimizer", "evaluation",
    "checkpoint", "barrier", "leaving",
)  # fmt: skip
# A rank in one of these has done its part of the step and waits for the other ranks'.
WAITING = frozenset({"exchange", "barrier"})
# These take as long as a disk or a compiler takes: no measure of a step.
UNTIMED = frozenset({"start", "checkpoint", "leaving"})
# changes, step, phase, time of the last change (s, CLOCK_MONOTONIC), longest time between changes
# since the first step was done (s), steps done since the start.
_LAYOUT = struct.Struct("@qqqddq")
_NUMBERS = {name: number for number, name in enumerate(PHASES)}


class Pulse(NamedTuple):
    """What a rank last said of itself.

    Args:
        changes: how often it has said something; two pulses with the same number are one.
        step: finished steps of the run.
        phase: one of PHASES; "" where the program does not say.
        changed_at_s: when (CLOCK_MONOTONIC of its host).
        longest_s: the longest time between two changes since its first step, UNTIMED phases aside.
        steps_done: finished steps since the program started.
    """

    changes: int
    step: int
    phase: str
    changed_at_s: float
    longest_s: float
    steps_done: int


class PulsePage:
    """The shim's end: makes the page and reads it."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("hpctrain-pulse")
        os.ftruncate(self.descriptor, PAGE_BYTES)
        os.set_inheritable(self.descriptor, True)
        self._page = mmap.mmap(self.descriptor, PAGE_BYTES)

    @property
    def variable(self) -> str:
        """The value of HPCTRAIN_PULSE_FD: the descriptor, and its inode for one that was reused."""
        return f"{self.descriptor}:{os.fstat(self.descriptor).st_ino}"

    def read(self) -> Pulse | None:
        """Return the pulse; None where the program has none."""
        for _ in range(MOST_READS):
            seen = self._page[: _LAYOUT.size]
            if seen == self._page[: _LAYOUT.size]:  # else the program is just writing
                break
        changes, step, phase, at_s, longest_s, done = _LAYOUT.unpack(seen)
        if changes == 0:
            return None
        name = PHASES[phase] if 0 <= phase < len(PHASES) else ""
        return Pulse(changes, step, name, at_s, longest_s, done)


class PulseWriter:
    """The program's end. What it knows is in the page, so a program may have several."""

    def __init__(self) -> None:
        self._page = _open_page()

    def enter(self, phase: str) -> None:
        """Say that the rank now is in a phase."""
        self._write(phase=_NUMBERS[phase])

    def step(self, step: int) -> None:
        """Say that a step is done; the phase stays what it was.

        Args:
            step: finished steps of the run; what is no such number is no pulse.
        """
        # Foreign programs may report anything: reporting must never end a training.
        with suppress(TypeError, ValueError, OverflowError, RuntimeError, struct.error):
            self._write(step=int(step))

    def _write(self, phase: int | None = None, step: int | None = None) -> None:
        if self._page is None:
            return
        now_s = time.monotonic()
        changes, last_step, was, at_s, longest_s, done = _LAYOUT.unpack_from(self._page)
        # The first step compiles, allocates and fills caches: no measure of the others.
        if done > 1 and PHASES[was] not in UNTIMED:
            longest_s = max(longest_s, now_s - at_s)
        # At once: `pack_into` makes zeros of it first, and a shim that reads then sees a standstill
        # since the machine was started.
        self._page[: _LAYOUT.size] = _LAYOUT.pack(
            changes + 1, last_step if step is None else step,
            was if phase is None else phase, now_s, longest_s, done + (step is not None),
        )  # fmt: skip


def _open_page() -> mmap.mmap | None:
    """Return the page that the shim made; None outside a launch."""
    descriptor, _, inode = os.environ.get(PULSE_FD_VARIABLE, "").partition(":")
    try:
        if os.fstat(int(descriptor)).st_ino != int(inode):
            return None
        return mmap.mmap(int(descriptor), PAGE_BYTES)
    except (OSError, ValueError):
        return None  # a wrapper closed or reused it: the rank goes on without a pulse
