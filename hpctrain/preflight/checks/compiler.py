"""Can Horovod be built here?"""

from __future__ import annotations

from hpctrain.preflight.machine import Machine
from hpctrain.preflight.verdict import PASS, WARN, Verdict

_PACKAGES = (
    {"g++": "g++", "make": "make", "Python.h": "python3-dev"},
    {"g++": "gcc-c++", "make": "make", "Python.h": "python3-devel"},
)


def check_compiler(machine: Machine) -> Verdict:
    """Look for what only building Horovod needs."""
    missing = [name for name in ("g++", "make") if not machine.programs.get(name)]
    missing += [] if machine.has_python_header else ["Python.h"]
    if missing:
        found = f"missing to build Horovod: {', '.join(missing)}"
        debian, red_hat = (" ".join(names[each] for each in missing) for names in _PACKAGES)
        fix = f"apt-get install {debian}, or dnf install {red_hat}"
        return Verdict("compiler", WARN, found, fix)
    return Verdict("compiler", PASS, "g++, make and Python.h are there")
