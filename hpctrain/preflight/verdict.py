"""What a check says: PASS, WARN, FAIL or SKIP, what it found, and the fix as a command."""

from __future__ import annotations

from dataclasses import dataclass

PASS = "PASS"
WARN = "WARN"
FAIL = "FAIL"
SKIP = "SKIP"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the checklist.

    Args:
        code: stable name of the check, for scripts.
        status: PASS, WARN (works, but …), FAIL (ranks would not run) or SKIP (not looked at).
        found: what is there, and why it counts as this.
        fix: what to do; empty where nothing is to be done.
    """

    code: str
    status: str
    found: str
    fix: str = ""
