"""What a check is: a probe that runs on every host, and a judgement on all the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import Verdict

QUICK, FULL = "quick", "full"


class Probe(NamedTuple):
    """What is looked at on each host.

    Args:
        name: under which the answers stand in a fleet.
        look: runs there, in a process of its own; returns what JSON can hold.
        timeout_s: its limit.
    """

    name: str
    look: Callable[[NodeTask], Any]
    timeout_s: float = 20.0


class Check(NamedTuple):
    """One line (or more) of the checklist.

    Args:
        code: stable name, for scripts.
        judge: the fleet → verdicts.
        probes: what it needs to know of each host.
        level: "quick", or "full" for what takes minutes or loads the machines.
        needs_hosts: whether it says nothing on a single machine.
    """

    code: str
    judge: Callable[[Fleet], Iterable[Verdict]]
    probes: tuple[Probe, ...] = ()
    level: str = QUICK
    needs_hosts: bool = False
