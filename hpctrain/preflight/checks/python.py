"""Is this Python one that hpctrain runs on?"""

from __future__ import annotations

from hpctrain.preflight.machine import Machine
from hpctrain.preflight.verdict import FAIL, PASS, Verdict

OLDEST = (3, 10)


def check_python(machine: Machine) -> Verdict:
    """Compare the interpreter's version with the oldest one that is supported."""
    version = ".".join(map(str, machine.python_version))
    if machine.python_version[:2] < OLDEST:
        return Verdict("python", FAIL, f"{version}; expected ≥ 3.10", "install a newer python3")
    return Verdict("python", PASS, f"{version}, {machine.python}")
