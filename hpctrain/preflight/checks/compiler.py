"""Can Horovod be built here?"""

from __future__ import annotations

from hpctrain.preflight.machine import Machine
from hpctrain.preflight.verdict import PASS, WARN, Verdict


def check_compiler(machine: Machine) -> Verdict:
    """Look for what only building Horovod needs."""
    needed = {"g++": "g++", "make": "make"}
    missing = [package for program, package in needed.items() if not machine.programs.get(program)]
    missing += [] if machine.has_python_header else ["python3-dev"]
    if missing:
        found = f"missing to build Horovod: {', '.join(missing)}"
        return Verdict("compiler", WARN, found, f"apt-get install {' '.join(missing)}")
    return Verdict("compiler", PASS, "g++, make and Python.h are there")
