"""``python -m hpctrain.train.versions``: which packages can really be imported, as JSON.

A package that is installed and broken counts as broken, so each is imported. It runs in a
process of its own: an import that crashes must not take preflight with it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
from collections.abc import Callable
from typing import Any


def _torch() -> dict[str, Any]:
    import torch

    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "version": torch.__version__, "cuda": torch.version.cuda, "cuda_devices": devices,
        "nccl_libraries": find_nccl_libraries(_read_maps()),
    }  # fmt: skip


def _horovod() -> dict[str, Any]:
    import horovod
    import horovod.torch as hvd

    built = {"MPI": hvd.mpi_built(), "NCCL": hvd.nccl_built(), "Gloo": hvd.gloo_built()}
    return {"version": horovod.__version__, "operations": [k for k, v in built.items() if v]}


def _mpi4py() -> dict[str, Any]:
    import mpi4py

    mpi4py.rc.initialize = False  # the library's name needs no MPI_Init
    from mpi4py import MPI

    library = MPI.Get_library_version().replace("\0", "").strip().splitlines()[0]
    return {"version": mpi4py.__version__, "library": library}


def _apex() -> dict[str, Any]:
    importlib.import_module("apex.amp")
    return {"version": None}


def _nccl() -> dict[str, Any]:
    """Return every NCCL that torch and Horovod, imported before, have brought into this process."""
    import torch

    loaded = find_nccl_libraries(_read_maps())
    own = ".".join(map(str, torch.cuda.nccl.version())) if torch.version.cuda else None
    return {"loaded": {path: _nccl_version(path) for path in loaded}, "torch": own}


def _read_maps() -> str:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        return maps.read()


def find_nccl_libraries(maps: str) -> list[str]:
    """Return the NCCL libraries in the text of /proc/PID/maps; its plugins are none.

    >>> find_nccl_libraries("7f00-7f01 r-xp 0 08:01 7 /opt/lib/libnccl.so.2\\n")
    ['/opt/lib/libnccl.so.2']
    """
    files = (line.split(maxsplit=5)[5] for line in maps.splitlines() if line.count("/"))
    return sorted({f for f in files if os.path.basename(f).startswith("libnccl.so")})


def _nccl_version(path: str) -> str:
    number = ctypes.c_int()
    ctypes.CDLL(path).ncclGetVersion(ctypes.byref(number))
    return parse_nccl_version(number.value)


def parse_nccl_version(number: int) -> str:
    """Return the version behind ncclGetVersion's number, as NCCL_VERSION in nccl.h makes it.

    >>> parse_nccl_version(2804), parse_nccl_version(22907)
    ('2.8.4', '2.29.7')
    """
    major = 1000 if number < 10000 else 10000  # until 2.8, and since
    return f"{number // major}.{number % major // 100}.{number % 100}"


def collect() -> dict[str, dict[str, Any]]:
    """Return for each package what it says of itself, or the error that importing it gave."""
    asked: dict[str, Callable[[], dict[str, Any]]] = {
        "torch": _torch,
        "horovod": _horovod,
        "nccl": _nccl,
        "mpi4py": _mpi4py,
        "apex": _apex,
    }
    found = {}
    for name, ask in asked.items():
        try:
            found[name] = ask()
        except Exception as problem:  # whatever a broken package throws is the answer
            lines = str(problem).strip().splitlines() or [type(problem).__name__]
            found[name] = {"error": lines[0]}
    return found


if __name__ == "__main__":
    print(json.dumps(collect()))
