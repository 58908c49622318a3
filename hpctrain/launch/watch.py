"""Is a rank gone, stopped, or does the whole run stand still, and through whom? Pure.

MPI waits for ever for a rank that is stopped, asleep, or behind a cut cable (seen with Horovod's
stall check on). What catches it is apart from MPI: each shim's heartbeats, and in them the rank's
pulse (:mod:`hpctrain.pulse`). Hanging is told from slowness by the run's own history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from hpctrain.launch.channel import HEARTBEAT_INTERVAL_S
from hpctrain.launch.outcome import RankState
from hpctrain.pulse import UNTIMED, WAITING, Pulse

SILENCE_S = 20.0
"""A host that is not heard for so long is gone: four heartbeats."""
STOPPED_S = 9.0
"""A program that somebody has stopped (SIGSTOP) for so long, three heartbeats, holds all up."""
SHORTEST_HANG_S, HANG_FACTOR = 30.0, 10.0
UNTIMED_S = 900.0
"""Compiling, loading and writing checkpoints take minutes and say nothing meanwhile."""
PATIENCE_S: Mapping[str, float] = MappingProxyType({
    **dict.fromkeys(UNTIMED, UNTIMED_S),
    # Storage has its bad minutes.
    "data": 120.0, "evaluation": 120.0,
    # A program that reports steps alone: nobody knows what it does between them. As long as
    # torch.distributed waits with gloo (default_pg_timeout, 30 min).
    "": 1800.0,
})  # fmt: skip
"""Standstills that are no hang yet while a rank is in such a phase (s)."""
LEFT_EARLY = "left early"
STEP_PHASES = ("data", "forward", "backward", "optimizer")
"""What a rank is at in a step, in this order, when it does not say that it waits."""
HARMLESS_LAST_PHASES = frozenset({"", "leaving", "barrier"})


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a run that would otherwise wait for ever.

    Args:
        kind: "silent", "stopped", "hang" or "left early".
        ranks: the culprits; empty where all wait for each other.
        reason: in words, of the first culprit.
    """

    kind: str
    ranks: tuple[int, ...]
    reason: str

    @property
    def needs_stacks(self) -> bool:
        """Whether the stacks of ranks that can be reached say more than is known."""
        return self.kind in ("stopped", "hang")


def find_trouble(
    ranks: Sequence[RankState], now_s: float, hang_timeout_s: float | None = None
) -> Finding | None:
    """Return what holds a run up, or None.

    Args:
        now_s: of the clock that `heard_at_s` is of.
        hang_timeout_s: standstill of all ranks that counts as a hang, but for UNTIMED phases; None
            for ten times the longest that a rank has stood still so far, PATIENCE_S at least.
    """
    running = [(n, rank) for n, rank in enumerate(ranks) if rank.reported and not rank.ended]
    silent = [n for n, rank in running if now_s - rank.heard_at_s > SILENCE_S]
    if silent:
        silent_s = now_s - ranks[silent[0]].heard_at_s
        return Finding("silent", tuple(silent), describe_silence(silent_s))
    stopped = [n for n, rank in running if rank.stopped_s >= STOPPED_S]
    if stopped:
        reason = "its program is stopped (SIGSTOP), and all others wait for it"
        return Finding("stopped", tuple(stopped), reason)
    return _find_hang(ranks, running, hang_timeout_s)


def describe_silence(silent_s: float) -> str:
    """Return why a rank that says nothing any more is taken for lost."""
    return f"not heard for {silent_s:.0f} s: its host, or the way to it, is gone"


def has_left_early(rank: RankState) -> bool:
    """Return whether a rank has ended with 0 in the middle of a step, which nobody means to.

    Of a program that reports steps alone that cannot be told: ranks may be done one by one.
    """
    phase = "" if rank.pulse is None else rank.pulse.phase
    return rank.exit_code == 0 and phase not in HARMLESS_LAST_PHASES


def describe_early_exit(rank: RankState) -> str:
    """Return why a rank that has ended with 0 is a failure."""
    at = f": after step {rank.pulse.step}, in {_phase(rank)}" if rank.pulse is not None else ""
    return f"left early, with exit code 0, while others were at work{at}"


def hang_limit_s(pulses: Sequence[Pulse], hang_timeout_s: float | None = None) -> float:
    """Return how long all ranks, which have these pulses, may stand still."""
    if any((pulse.phase and pulse.steps_done == 0) or pulse.phase in UNTIMED for pulse in pulses):
        return max(UNTIMED_S, hang_timeout_s or 0.0)
    if hang_timeout_s is not None:
        return hang_timeout_s
    longest_s = max(pulse.longest_s for pulse in pulses)
    patience_s = max(PATIENCE_S.get(pulse.phase, SHORTEST_HANG_S) for pulse in pulses)
    return max(patience_s, HANG_FACTOR * longest_s)


def _find_hang(
    ranks: Sequence[RankState],
    running: Sequence[tuple[int, RankState]],
    hang_timeout_s: float | None,
) -> Finding | None:
    """Look at ranks with a pulse; of a program without one, only its life is known."""
    with_pulse = [(n, rank, rank.pulse) for n, rank in running if rank.pulse is not None]
    if not with_pulse:
        return None
    # A program that was suspended, host and all, counts that as the longest it stood still.
    known = [
        pulse._replace(longest_s=min(pulse.longest_s, rank.longest_still_s + HEARTBEAT_INTERVAL_S))
        for _, rank, pulse in with_pulse
    ]
    limit_s = hang_limit_s(known, hang_timeout_s)
    still_s = min(rank.still_s for _, rank, _ in with_pulse)
    if still_s <= limit_s:
        return None
    pulses = {n: pulse for n, _, pulse in with_pulse}
    stood = f"{_all(len(pulses))} for {still_s:.0f} s (limit {limit_s:.0f} s)"
    gone = _find_gone(ranks, first=min(pulse.step for pulse in pulses.values()))
    if gone:
        return Finding(LEFT_EARLY, tuple(gone), f"{describe_early_exit(ranks[gone[0]])}; {stood}")
    culprits = _find_culprits(pulses)
    if not culprits:
        return Finding("hang", (), f"{stood}, {_describe_common_standstill(pulses)}")
    pulse = pulses[culprits[0]]
    at = f"after step {pulse.step}, in {pulse.phase or 'its own code'}"
    if len(pulses) == 1:
        return Finding("hang", tuple(culprits), f"{stood}, {at}")
    others = len(pulses) - len(culprits)
    if pulse.phase in WAITING:
        lost = "did not get what the others sent: is the network to its host whole?"
    else:
        lost = f"did not arrive, while {others} of {len(pulses)} ranks wait"
    return Finding("hang", tuple(culprits), f"{stood}; it {lost} ({at})")


def _find_culprits(pulses: Mapping[int, Pulse]) -> list[int]:
    """Return who did not arrive: of those furthest behind, who does not wait for others.

    Who waits in an exchange of a later step than another's has not been kept waiting by it. DDP
    waits inside the backward pass: there it is who has come least far in the step. Where that is
    all of them, it is nobody.
    """
    first = min(pulse.step for pulse in pulses.values())
    behind = [n for n, pulse in pulses.items() if pulse.step == first]
    at_work = [n for n in behind if pulses[n].phase and pulses[n].phase not in WAITING]
    for found in (at_work, _least_far(at_work, pulses), behind):
        if 0 < len(found) < len(pulses):
            return found
    return at_work if len(pulses) == 1 else []


def _least_far(at_work: Sequence[int], pulses: Mapping[int, Pulse]) -> list[int]:
    """Return whose phase of the step is the earliest, of ranks whose phase is a step's."""
    known = [n for n in at_work if pulses[n].phase in STEP_PHASES]
    first = min((STEP_PHASES.index(pulses[n].phase) for n in known), default=-1)
    return [n for n in known if STEP_PHASES.index(pulses[n].phase) == first]


def _describe_common_standstill(pulses: Mapping[int, Pulse]) -> str:
    phases = {pulse.phase for pulse in pulses.values()}
    step = min(pulse.step for pulse in pulses.values())
    if phases <= WAITING:
        return f"after step {step}, and wait for each other: is the network between them whole?"
    if phases == {""}:
        return f"after step {step}; what they do is not known, they report steps alone"
    return f"after step {step}, in {', '.join(sorted(phases))}"


def _find_gone(ranks: Sequence[RankState], first: int) -> list[int]:
    """Return who has ended with 0, neither ahead of the others (at step `first`) nor when done."""
    return [
        n for n, rank in enumerate(ranks)
        if rank.exit_code == 0
        and (rank.pulse is None or (rank.pulse.phase == "" and rank.pulse.step <= first))
    ]  # fmt: skip


def _all(count: int) -> str:
    return "it stands still" if count == 1 else "all ranks stand still"


def _phase(rank: RankState) -> str:
    return (rank.pulse.phase if rank.pulse else "") or "its own code"
