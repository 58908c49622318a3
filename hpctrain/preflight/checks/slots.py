"""How many ranks does this machine take by itself?"""

from __future__ import annotations

from hpctrain.preflight.machine import Machine
from hpctrain.preflight.verdict import PASS, Verdict


def check_slots(machine: Machine) -> Verdict:
    """Say how many local slots there are, and what they are."""
    facts = machine.facts
    kind = f"{len(facts.gpus)} GPUs" if facts.gpus else f"{facts.cores} cores, no GPU"
    return Verdict("slots", PASS, f"{facts.default_slots} ({kind})")
