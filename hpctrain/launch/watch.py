"""Is a rank gone, stopped, or does the whole run stand still, and through whom? Pure.

MPI waits for ever for a rank that is stopped, asleep, or behind a cut cable (seen with Horovod's
stall check on). What catches it is apart from MPI: each shim's heartbeats, and in them the rank's
pulse (:mod:`hpctrain.pulse`). Hanging is told from slowness by the run's own history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpctrain.launch.outcome import RankState
from hpctrain.pulse import WAITING

SILENCE_S = 20.0
"""A host that is not heard for so long is gone: four heartbeats."""
STOPPED_S = 12.0
"""A program that somebody has stopped (SIGSTOP) for so long holds all others up."""
SHORTEST_HANG_S, HANG_FACTOR = 30.0, 10.0
FOREIGN_SHORTEST_HANG_S = 300.0
"""Of a program that reports steps alone: nobody knows what it does between them."""
LONG_PHASES = frozenset({"start", "checkpoint"})
"""Reading data, compiling, loading and writing checkpoints take minutes and say nothing meanwhile."""
LONG_PHASE_S = 900.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a run that would otherwise wait for ever.

    Args:
        kind: "silent", "stopped" or "hang".
        ranks: the culprits; empty where all wait for each other.
        reason: in words, of the first culprit.
    """

    kind: str
    ranks: tuple[int, ...]
    reason: str


def find_trouble(
    ranks: Sequence[RankState], now_s: float, hang_timeout_s: float | None = None
) -> Finding | None:
    """Return what holds a run up, or None.

    Args:
        now_s: of the clock that `heard_at_s` is of.
        hang_timeout_s: standstill of all ranks that counts as a hang; None for the larger of 30 s
            and ten times the longest that a rank has stood still so far.
    """
    running = [(n, rank) for n, rank in enumerate(ranks) if rank.reported and not rank.ended]
    silent = [n for n, rank in running if now_s - rank.heard_at_s > SILENCE_S]
    if silent:
        silent_s = now_s - ranks[silent[0]].heard_at_s
        reason = f"not heard for {silent_s:.0f} s: its host, or the way to it, is gone"
        return Finding("silent", tuple(silent), reason)
    stopped = [
        n for n, rank in running
        if rank.stopped_since_s is not None and rank.heard_at_s - rank.stopped_since_s >= STOPPED_S
    ]  # fmt: skip
    if stopped:
        reason = "its program is stopped (SIGSTOP): all others wait for it"
        return Finding("stopped", tuple(stopped), reason)
    return _find_hang(running, hang_timeout_s)


def hang_limit_s(ranks: Sequence[RankState], hang_timeout_s: float | None) -> float:
    """Return how long all of these ranks may stand still."""
    pulses = [rank.pulse for rank in ranks if rank.pulse is not None]
    if any(pulse.steps_done == 0 or pulse.phase in LONG_PHASES for pulse in pulses):
        return max(LONG_PHASE_S, hang_timeout_s or 0.0)
    if hang_timeout_s is not None:
        return hang_timeout_s
    longest_s = max(pulse.longest_s for pulse in pulses)
    is_foreign = any(pulse.phase == "" for pulse in pulses)
    return max(FOREIGN_SHORTEST_HANG_S if is_foreign else SHORTEST_HANG_S, HANG_FACTOR * longest_s)


def _find_hang(
    running: Sequence[tuple[int, RankState]], hang_timeout_s: float | None
) -> Finding | None:
    """Look at ranks with a pulse; of a program without one, only its life is known."""
    with_pulse = [(n, rank) for n, rank in running if rank.pulse is not None]
    if not with_pulse:
        return None
    limit_s = hang_limit_s([rank for _, rank in with_pulse], hang_timeout_s)
    still_s = min(rank.still_s for _, rank in with_pulse)
    if still_s <= limit_s:
        return None
    culprits = _find_culprits(with_pulse)
    stood = f"all ranks stand still for {still_s:.0f} s (limit {limit_s:.0f} s)"
    if not culprits:
        return Finding("hang", (), f"{stood} and wait for each other: is the network between them?")
    number, rank = culprits[0]
    assert rank.pulse is not None
    others = sum(1 for n, each in with_pulse if n != number and _waits(each))
    reason = (
        f"{stood}; it did not arrive: after step {rank.pulse.step}, in {_phase(rank)}, "
        f"while {others} of {len(with_pulse)} ranks wait"
    )
    return Finding("hang", tuple(n for n, _ in culprits), reason)


def _find_culprits(ranks: Sequence[tuple[int, RankState]]) -> list[tuple[int, RankState]]:
    """Return who did not arrive: the furthest behind, else those that do not wait for others.

    Who waits in an exchange of a later step than another's has not been kept waiting by it.
    """
    steps = {rank.pulse.step for _, rank in ranks if rank.pulse is not None}
    behind = [(n, r) for n, r in ranks if r.pulse is not None and r.pulse.step == min(steps)]
    late = [(n, r) for n, r in behind if r.pulse is not None and r.pulse.phase and not _waits(r)]
    if late:
        return late
    return behind if len(steps) > 1 else []


def _waits(rank: RankState) -> bool:
    return rank.pulse is not None and rank.pulse.phase in WAITING


def _phase(rank: RankState) -> str:
    return (rank.pulse.phase if rank.pulse else "") or "its own code"
