"""How long will it take? Pure: from short trials at the smallest and the largest size."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What a short trial says of longer ones of its size.

    Args:
        base_s: launch, and whatever else comes once a trial.
        step_s: each step; 0 where a COMMAND decides how long it runs.
    """

    np: int
    base_s: float
    step_s: float


def calibrate(np: int, wall_s: float, step_time_s: Sequence[float]) -> Calibration:
    """Return what a short trial took, as launch and steps.

    Args:
        wall_s: of the whole trial.
        step_time_s: of all its steps; the first, which is slow once, counts as launch. Empty
            where the next trials will be as long as this one.

    >>> calibrate(2, 5.0, [1.5, 0.25, 0.25])
    Calibration(np=2, base_s=4.25, step_s=0.25)
    """
    step_s = statistics.median(step_time_s[1:] or step_time_s) if step_time_s else 0.0
    return Calibration(np=np, base_s=max(0.0, wall_s - len(step_time_s) * step_s), step_s=step_s)


def calibrate_from_stored(
    np: int, wall_s: float, step_time_s: Sequence[float], warmup_steps: int
) -> Calibration:
    """Return what a measured trial says of others of its size, for a bench that goes on.

    Args:
        step_time_s: of its timed steps; empty where a COMMAND decides how long it runs.

    >>> calibrate_from_stored(2, 5.0, [0.5, 0.5], warmup_steps=2)
    Calibration(np=2, base_s=3.0, step_s=0.5)
    """
    step_s = statistics.median(step_time_s) if step_time_s else 0.0
    steps = len(step_time_s) + (warmup_steps if step_time_s else 0)
    return Calibration(np=np, base_s=max(0.0, wall_s - steps * step_s), step_s=step_s)


def estimate_trial_s(np: int, steps: int, calibrations: Sequence[Calibration]) -> float:
    """Return what a trial will take (s); between two sizes, on the line through them.

    >>> ends = [Calibration(np=1, base_s=2, step_s=0.1), Calibration(np=3, base_s=4, step_s=0.2)]
    >>> estimate_trial_s(2, 10, ends)
    4.5
    """
    low, high = calibrations[0], calibrations[-1]
    part = (np - low.np) / (high.np - low.np) if high.np > low.np else 0.0
    base_s = low.base_s + part * (high.base_s - low.base_s)
    return base_s + steps * (low.step_s + part * (high.step_s - low.step_s))


def remaining_s(
    left: Sequence[str], walls_s: Mapping[str, Sequence[float]], estimates_s: Mapping[str, float]
) -> float:
    """Return what the things that are left will take (s).

    Args:
        left: their names, each as often as it is to be done.
        walls_s: what was measured of each name so far; its median counts before the estimate.

    >>> remaining_s(["a", "a", "b"], {"a": [2.0]}, {"a": 9.0, "b": 5.0})
    9.0
    """
    known = {name: statistics.median(values) for name, values in walls_s.items() if values}
    return sum(known.get(name, estimates_s.get(name, 0.0)) for name in left)


def cost_usd(seconds: float, usd_per_hour: float) -> float:
    """Return what so long costs.

    >>> cost_usd(1800, 3.0)
    1.5
    """
    return seconds / 3600 * usd_per_hour


def render_duration(seconds: float) -> str:
    """Return a duration for a person.

    >>> render_duration(8.26), render_duration(75), render_duration(7260)
    ('8.3 s', '1:15 min', '2:01 h')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"
