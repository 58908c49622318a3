"""Is Horovod there, which operations was it built with, and for the MPI that starts ranks?"""

from __future__ import annotations

from hpctrain.preflight.machine import Machine
from hpctrain.preflight.verdict import FAIL, PASS, WARN, Verdict

FIX = "hpctrain install-horovod"


def check_horovod(machine: Machine) -> Verdict:
    """Import Horovod, name its operations, and compare its MPI with mpirun's."""
    horovod = machine.packages.get("horovod", {"error": "not asked"})
    if "error" in horovod:
        found = f"{horovod['error']}; everything but comm.backend=horovod works without it"
        return Verdict("horovod", FAIL, found, FIX)
    operations = ", ".join(horovod.get("operations", ())) or "none"
    found = f"{horovod['version']}, operations: {operations}"
    stamp, mpi = machine.stamp, machine.mpi
    if stamp is not None and mpi is not None and stamp.mpi_flavour != mpi.flavour:
        found += f"; built for {stamp.mpi_flavour} {stamp.mpi_version}, but mpirun is {mpi.flavour}"
        return Verdict("horovod", FAIL, f"{found} {mpi.version}", FIX)
    if stamp is None:
        return Verdict("horovod", WARN, f"{found}; not built by hpctrain: its MPI is unknown", FIX)
    if machine.facts.gpus and "NCCL" not in horovod.get("operations", ()):
        found += f"; {len(machine.facts.gpus)} GPUs here, and no NCCL operations"
        return Verdict("horovod", WARN, found, f"{FIX} (needs nvcc and a CUDA build of torch)")
    return Verdict("horovod", PASS, f"{found}; for {stamp.mpi_flavour} {stamp.mpi_version}")
