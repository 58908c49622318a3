"""What the scaling model says of each size, beside what was measured.

It is calibrated on the smallest sizes and the all-reduces, so those sizes are no test of it:
they are marked, never predicted from themselves.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """A prediction for one size.

    Args:
        kind: ``predicted``, ``calibration`` (the model was fitted to this one) or ``none``.
        why: how it was calibrated, or why there is none.
        step_s: with its error band; None unless predicted.
        error: predicted step over the measured one, less 1.
        growing_term: what the model says grows most.
    """

    kind: str
    why: str
    step_s: float | None = None
    low_s: float | None = None
    high_s: float | None = None
    efficiency: float | None = None
    error: float | None = None
    growing_term: str | None = None
