"""Each of the four MPIs starts ranks that know of each other, and each is recognised."""

import os
import subprocess
import sys

import pytest

from hpctrain.executor import LocalExecutor
from hpctrain.launch.find_mpi import find_mpi

AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
TIMEOUT_S = 120
# os.write: ranks share one stdout, and what print() writes in pieces can mix.
MPI4PY = """
import os
from mpi4py import MPI
ranks = MPI.COMM_WORLD
os.write(1, f"size {ranks.size} sum {ranks.allreduce(1)}\\n".encode())
"""
HOROVOD = """
import os, torch, horovod.torch as hvd
hvd.init()
total = hvd.allreduce(torch.ones(1), op=hvd.Sum)
os.write(1, f"size {hvd.size()} sum {int(total)}\\n".encode())
"""


def launch(flavour, *command, **more):
    environ = {**os.environ, **AS_ROOT, **flavour.env, **more}
    argv = [flavour.mpirun, "-n", "2", sys.executable, *command]
    return subprocess.run(
        argv, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def test_each_is_found_and_recognised(mpi_flavour, tmp_path):
    environ = {**os.environ, "HPCTRAIN_MPIRUN": mpi_flavour.mpirun, "XDG_CACHE_HOME": str(tmp_path)}
    found = find_mpi(environ, LocalExecutor())
    assert (found.flavour, found.version) == (mpi_flavour.name, mpi_flavour.version)
    assert (found.mpicxx is None) == (mpi_flavour.name == "intelmpi")


def test_each_runs_two_ranks_of_mpi4py(mpi_flavour):
    pytest.importorskip("mpi4py")
    done = launch(mpi_flavour, "-c", MPI4PY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["size 2 sum 2"] * 2


@pytest.mark.needs("horovod")
def test_horovod_is_built_for_open_mpi_4_too(openmpi4, horovod_openmpi4):
    done = launch(openmpi4, "-c", HOROVOD, PYTHONPATH=str(horovod_openmpi4))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["size 2 sum 2"] * 2
