"""What a check says: PASS, WARN, FAIL or SKIP, what was expected and found, and the fix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

PASS = "PASS"
WARN = "WARN"
FAIL = "FAIL"
SKIP = "SKIP"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the checklist.

    Args:
        code: stable name of the check, for scripts.
        status: PASS, WARN (works, but …), FAIL (the run would fail) or SKIP (not looked at).
        found: what is there, and why it counts as this.
        fix: what to do, as a command where there is one; empty where nothing is to be done.
        expected: what should be there, where that is not plain from `found`.
        hosts: which hosts it is about; empty where it is about none in particular.
    """

    code: str
    status: str
    found: str
    fix: str = ""
    expected: str = ""
    hosts: tuple[str, ...] = ()


def merge(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Make one line of what hosts have in common; the order is that of the first of each.

    >>> merge([Verdict("a", PASS, "x", hosts=("n1",)), Verdict("a", PASS, "x", hosts=("n2",))])
    [Verdict(code='a', status='PASS', found='x', fix='', expected='', hosts=('n1', 'n2'))]
    """
    merged: dict[Verdict, tuple[str, ...]] = {}
    for verdict in verdicts:
        key = replace(verdict, hosts=())
        merged[key] = (*merged.get(key, ()), *verdict.hosts)
    return [replace(verdict, hosts=hosts) for verdict, hosts in merged.items()]
