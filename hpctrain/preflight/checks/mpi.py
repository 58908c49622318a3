"""Which MPI starts ranks here, why that one, and does it start anything?"""

from __future__ import annotations

from hpctrain.launch.dialects import DIALECTS
from hpctrain.launch.find_mpi import WHEEL
from hpctrain.preflight.machine import Machine
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, Verdict


def check_mpi(machine: Machine) -> Verdict:
    """Say which mpirun is taken and why, and why others are not."""
    mpi = machine.mpi
    if mpi is None:
        return Verdict("mpi", FAIL, machine.mpi_problem, f"pip install {WHEEL}")
    passed_over = "".join(f"; not {other.mpirun}: {other.reason}" for other in mpi.considered)
    title = DIALECTS[mpi.flavour].title
    wrapper = "" if mpi.mpicxx else "; no compiler wrapper, so Horovod cannot be built for it"
    found = f"{title} ({mpi.version}, {mpi.source}): {mpi.why}{passed_over}{wrapper}"
    return Verdict("mpi", PASS, f"{found}; {mpi.mpirun}")


def check_mpirun(machine: Machine) -> Verdict:
    """Say whether mpirun really starts two ranks."""
    trial = machine.mpirun_trial
    if trial is None:
        return Verdict("mpirun", SKIP, "no MPI to try")
    if trial.ok:
        return Verdict("mpirun", PASS, "starts 2 ranks here")
    found = f"2 ranks of 'true' ended with exit code {trial.returncode}: {trial.last_words}"
    return Verdict("mpirun", FAIL, found, "hpctrain run --np 2 --dry-run -- true, then run that")
