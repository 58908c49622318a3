"""Machines as values, for tests of preflight's judgements."""

from dataclasses import replace

from hpctrain.executor import Command, Completed
from hpctrain.facts import HostFacts
from hpctrain.horovod_stamp import HorovodStamp
from hpctrain.launch.find_mpi import MpiInstall
from hpctrain.preflight.machine import Machine

OPEN_MPI = MpiInstall("/mpi/bin/mpirun", "/mpi/bin/mpicxx", "openmpi5", "5.0.11", "PATH", "first")
TRIAL = Completed(Command(("mpirun",)), 0, "", "")
PACKAGES = {
    "torch": {"version": "2.13.0", "cuda": None, "cuda_devices": 0},
    "horovod": {"version": "0.28.1", "operations": ["MPI"]},
    "mpi4py": {"version": "4.1.0", "library": "Open MPI v5.0.11, package: Open MPI, ident: 5.0.11"},
    "apex": {"error": "No module named 'apex'"},
}
GOOD = Machine(
    facts=HostFacts("laptop", cores=4),
    python="/venv/bin/python",
    python_version=(3, 11, 7),
    programs={name: f"/usr/bin/{name}" for name in ("g++", "make", "ssh", "git")},
    has_python_header=True,
    mpi=OPEN_MPI,
    mpi_problem="",
    mpirun_trial=TRIAL,
    packages=PACKAGES,
    stamp=HorovodStamp("0.28.1", "2.13.0", "cp311", "openmpi5", "5.0.11", None, None, "key"),
    nccl_config_files=(),
)
TWO_GPUS = HostFacts("node", cores=8, gpus=("NVIDIA H200", "NVIDIA H200"))


def with_package(name, **answer):
    """Return the good machine, with another answer of a package."""
    return replace(GOOD, packages={**PACKAGES, name: answer})
