"""One figure of an estimate, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One figure.

    Args:
        value: in the unit that `key` ends with, or without one.
        text: the same for people.
        source: formula, measurement, publication or assumption.
    """

    group: str
    key: str
    name: str
    value: Any
    text: str
    source: str
