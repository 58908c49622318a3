"""What was an Open MPI built with? Read from its files, which costs no start of a program."""

from __future__ import annotations

import mmap
from pathlib import Path

# One file a component in Debian's builds and in most of version 4; inside the library in wheels.
UCX_FILE = "openmpi*/mca_pml_ucx.so"
UCX_WORD = b"mca_pml_ucx_component"
LIBRARY = "libmpi.so"


def probe_ucx(mpirun: str) -> bool:
    """Return whether the Open MPI that this mpirun belongs to can use UCX."""
    prefix = Path(mpirun).resolve().parent.parent
    folders = [folder for folder in (*prefix.glob("lib"), *prefix.glob("lib/*-linux-gnu"),
                                     *prefix.glob("lib64")) if folder.is_dir()]  # fmt: skip
    for folder in folders:
        if any(folder.glob(UCX_FILE)) or any(folder.glob(f"openmpi/lib/{UCX_FILE}")):
            return True
        library = folder / LIBRARY
        if library.is_file() and _holds(library, UCX_WORD):
            return True
    return False


def _holds(path: Path, word: bytes) -> bool:
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return content.find(word) >= 0
    except (OSError, ValueError):
        return False
