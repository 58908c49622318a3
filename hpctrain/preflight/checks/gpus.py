"""Which GPUs are there?"""

from __future__ import annotations

from collections import Counter

from hpctrain.preflight.machine import Machine
from hpctrain.preflight.verdict import PASS, SKIP, Verdict


def check_gpus(machine: Machine) -> Verdict:
    """Name the GPUs that this user's processes may use."""
    if not machine.facts.gpus:
        return Verdict("gpus", SKIP, "no NVIDIA GPU here: ranks compute on the CPU")
    counted = Counter(machine.facts.gpus)
    return Verdict("gpus", PASS, ", ".join(f"{count} {name}" for name, count in counted.items()))
