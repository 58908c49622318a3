"""When did each attempt of a run begin, step, evaluate, save and end? From its events; pure but for
:func:`read_rank_steps`. What a program reports may be anything: what does not fit is left out."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class StepTime:
    """A ``step`` event: finished steps, when it was sent, and of each step since the one before it
    the seconds, and those that rank 0 waited for data."""

    step: int
    at_s: float
    step_time_s: float | None
    data_s: float


@dataclass(slots=True)
class Attempt:
    """One attempt, in Unix time.

    Args:
        is_restart: whether the same launcher had tried before.
        trains: whether it was hpctrain's trainer.
        resumed: the step of the checkpoint that it went on from.
        ended_s: None where nobody wrote it.
        last_s: time of its last event.
        saves: of each checkpoint its step, when it was complete, and what its step waited (s).
    """

    begun_s: float
    is_restart: bool
    trains: bool = False
    resumed: int | None = None
    ended_s: float | None = None
    state: str | None = None
    last_s: float = 0.0
    steps: list[StepTime] = field(default_factory=list)
    evaluated_s: list[float] = field(default_factory=list)
    saves: list[tuple[int, float, float]] = field(default_factory=list)

    @property
    def first_step(self) -> int | None:
        """Finished steps that the attempt went on from; None where it never got to train."""
        if self.resumed is not None:
            return self.resumed
        if not self.steps:
            return None
        return 0 if self.trains else self.steps[0].step - 1

    @property
    def end_s(self) -> float:
        """When it ended, as far as anything is known."""
        return max(self.begun_s, self.last_s if self.ended_s is None else self.ended_s)


def gather_attempts(
    events: Iterable[Mapping[str, Any]], rank_steps: Iterable[Mapping[str, Any]]
) -> list[Attempt]:
    """Return a run's attempts.

    Args:
        events: of ``events.jsonl``, in its order.
        rank_steps: rank 0's ``rank_step`` records.
    """
    waits: dict[int, list[float]] = defaultdict(list)
    for record in rank_steps:
        if _is_step(record.get("step")):
            waits[record["step"]].append(_seconds(record.get("data_s")) or 0.0)
    attempts: list[Attempt] = []
    restarts = False
    for event in events:
        at_s, name = _seconds(event.get("time_s")), event.get("event")
        if at_s is None:
            continue
        if name == "attempt":
            # A launcher that ended after it had announced a restart was away until the next one.
            follows = restarts and bool(attempts) and event.get("reason") != "resumed"
            attempts.append(Attempt(at_s, follows, last_s=at_s))
            restarts = False
        elif name == "restart":
            restarts = True
        elif attempts:
            restarts = restarts and name != "run_finished"
            _note(attempts[-1], str(name), at_s, event, waits)
    return attempts


def read_rank_steps(path: Path) -> list[dict[str, Any]]:
    """Return rank 0's ``rank_step`` records of a run's directory."""
    records = []
    try:
        with open(path / "ranks" / "rank-00000.jsonl", "rb") as file:
            for line in file:
                if b'"rank_step"' in line:
                    try:
                        records.append(json.loads(line))
                    except ValueError:
                        continue  # half a line
    except OSError:
        pass
    return records


def _note(
    attempt: Attempt, name: str, at_s: float, event: Mapping[str, Any],
    waits: Mapping[int, list[float]],
) -> None:  # fmt: skip
    if name in ("attempt_finished", "run_finished"):
        if attempt.ended_s is None:  # the attempt's own end is the first of them
            attempt.ended_s, attempt.state = at_s, str(event.get("state"))
        return
    attempt.last_s = max(attempt.last_s, at_s)
    number = event.get("step")
    if name == "train_started":
        attempt.trains = True
    elif name == "eval":
        attempt.evaluated_s.append(at_s)
    elif not _is_step(number):
        return
    elif name == "resumed":
        attempt.resumed = number
    elif name == "checkpoint":
        attempt.saves.append((number, at_s, _seconds(event.get("stall_s")) or 0.0))
    elif name == "step":
        data_s = waits[number].pop(0) if waits.get(number) else 0.0
        attempt.steps.append(StepTime(number, at_s, _seconds(event.get("step_time_s")), data_s))


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _seconds(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) and value >= 0 else None
