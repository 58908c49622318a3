"""What the supervisor knows of a rank, tells the console, and concludes of an attempt."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any, Protocol


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

    def note_step(self, step: Any) -> None:
        """Remember a step; foreign programs may report anything."""
        if isinstance(step, int):
            self.step = step


def signal_name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal
        return ""
