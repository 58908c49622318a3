"""What the supervisor knows of a rank, tells the console, and concludes of an attempt."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any, Protocol

from hpctrain.pulse import Pulse

STOPPED_STATE = "T"  # of /proc/PID/stat, proc(5); "t", stopped by a debugger, is somebody's wish


class Console(Protocol):
    """What the supervisor tells the person who watches."""

    def rank_output(self, rank: int, host: str, stream: str, data: bytes) -> None: ...
    def event(self, rank: int, record: dict[str, Any]) -> None: ...
    def launcher_output(self, line: bytes) -> None: ...
    def warn(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class RankFailure:
    """The first rank that failed; `exit_code` is None where it vanished without a word."""

    rank: int
    host: str
    exit_code: int | None
    signal: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. `state` is done, failed, stopped (by a signal to the launcher) or
    resumable (the same, after the ranks have saved); `silent_ranks` never reported."""

    state: str
    exit_code: int
    duration_s: float
    failure: RankFailure | None = None
    silent_ranks: tuple[int, ...] = ()
    stop_signal: int | None = None
    needs_sweep: bool = False
    attempt_id: str = ""
    step: int | None = None


@dataclass(slots=True)
class RankState:
    """What one rank has said so far."""

    host: str
    reported: bool = False
    ended: bool = False
    exit_code: int | None = None
    step: int | None = None
    heard_at_s: float = 0.0
    pulse: Pulse | None = None
    """Of the last heartbeat; None for a program that has none."""
    still_s: float = 0.0
    """How long the pulse had not changed when that was sent."""
    stopped_since_s: float | None = None
    """Since when each heartbeat has said that the program is stopped."""
    stopped_s: float = 0.0
    """How long that was when the latest came."""

    def note_beat(self, frame: dict[str, Any], now_s: float) -> None:
        """Remember a heartbeat, as the shim sends it (``RankShim._describe_life``)."""
        self.note_step(frame.get("step"))
        self._note_pulse(frame)
        if frame.get("state") != STOPPED_STATE:
            self.stopped_since_s = None
        elif self.stopped_since_s is None:
            self.stopped_since_s = now_s
        self.stopped_s = 0.0 if self.stopped_since_s is None else now_s - self.stopped_since_s

    def note_exit(self, frame: dict[str, Any]) -> None:
        """Remember how the program ended, and what it was at."""
        self.ended, self.exit_code = True, frame["code"]
        self._note_pulse(frame)

    def _note_pulse(self, frame: dict[str, Any]) -> None:
        if frame.get("pulse") is not None:
            self.pulse = Pulse(*frame["pulse"])
            self.still_s = float(frame["still_s"])
            self.note_step(self.pulse.step)

    def note_step(self, step: Any) -> None:
        """Remember a step; foreign programs may report anything."""
        if isinstance(step, int):
            self.step = step


def signal_name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal
        return ""
