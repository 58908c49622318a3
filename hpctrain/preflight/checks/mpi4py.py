"""Does mpi4py, where it is installed, use the MPI that starts ranks?"""

from __future__ import annotations

import re

from hpctrain.preflight.machine import Machine
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict


def check_mpi4py(machine: Machine) -> Verdict:
    """Compare the library that mpi4py loads with mpirun's."""
    mpi4py = machine.packages.get("mpi4py", {"error": "not asked"})
    if "error" in mpi4py:
        if "No module named" in str(mpi4py["error"]):
            return Verdict("mpi4py", SKIP, "not installed; optional", "pip install mpi4py")
        return Verdict("mpi4py", WARN, str(mpi4py["error"]), "pip install --force-reinstall mpi4py")
    found = f"{mpi4py['version']} with {mpi4py['library']}"
    library = parse_library_version(mpi4py["library"])
    if machine.mpi is not None and library is not None and library != machine.mpi.flavour:
        found += f", but mpirun is {machine.mpi.flavour} {machine.mpi.version}: n ranks of size 1"
        return Verdict("mpi4py", FAIL, found, "set MPI4PY_LIBMPI to the libmpi.so beside mpirun")
    return Verdict("mpi4py", PASS, found)


def parse_library_version(text: str) -> str | None:
    """Return the flavour that ``MPI_Get_library_version`` names.

    >>> parse_library_version("Open MPI v5.0.11, package: …")
    'openmpi5'
    >>> parse_library_version("MPICH Version:      4.3.2")
    'mpich'
    >>> parse_library_version("Intel(R) MPI Library 2021.18 for Linux* OS")
    'intelmpi'
    """
    if match := re.search(r"Open MPI v?(\d+)", text):
        return f"openmpi{match[1]}"
    names = {"MPICH": "mpich", "Intel(R) MPI": "intelmpi"}
    return next((flavour for name, flavour in names.items() if name in text), None)
