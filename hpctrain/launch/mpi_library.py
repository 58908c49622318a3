"""Is the MPI that a rank's program has loaded the one that started it?

A program built for another MPI finds itself alone: n ranks become n runs of size 1, without an
error from anybody. What a process has loaded stands in ``/proc/PID/maps``.

Sources: Open MPI 4 and 5 call their library libmpi.so.40, MPICH and Intel MPI (which share the
MPICH ABI and run under each other's launcher) libmpi.so.12; all pairs were tried.
"""

from __future__ import annotations

from collections.abc import Mapping

OPEN_MPI, MPICH_ABI = "Open MPI", "MPICH or Intel MPI"
_FAMILIES = {"libmpi.so.40": OPEN_MPI, "libmpi.so.12": MPICH_ABI}


def find_foreign_mpi(maps: str, environ: Mapping[str, str]) -> str | None:
    """Return what is wrong, or None.

    Args:
        maps: the text of ``/proc/PID/maps`` of a rank's process.
        environ: the rank's variables, which tell whose launcher started it.

    >>> line = "7f2c00000000-7f2c00010000 r--p 00000000 08:01 42    /opt/mpi/lib/libmpi.so.40.40.5"
    >>> find_foreign_mpi(line, {"OMPI_COMM_WORLD_SIZE": "2"}) is None
    True
    >>> find_foreign_mpi(line, {"PMI_SIZE": "2"})
    'it has loaded /opt/mpi/lib/libmpi.so.40.40.5 (Open MPI) under the mpirun of MPICH or Intel MPI'
    """
    started_by = OPEN_MPI if "OMPI_COMM_WORLD_SIZE" in environ else MPICH_ABI
    paths = [line[line.find("/") :] for line in maps.splitlines() if "/libmpi.so." in line]
    loaded = {
        family: path
        for path in paths
        for library, family in _FAMILIES.items()
        if path.rpartition("/")[2].startswith(library)
    }
    if not loaded or started_by in loaded:
        return None
    family, path = loaded.popitem()
    return f"it has loaded {path} ({family}) under the mpirun of {started_by}"
