"""``python -m hpctrain.train.versions``: which packages can really be imported, as JSON.

A package that is installed and broken counts as broken, so each is imported. It runs in a
process of its own: an import that crashes must not take preflight with it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any


def _torch() -> dict[str, Any]:
    import torch

    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {"version": torch.__version__, "cuda": torch.version.cuda, "cuda_devices": devices}


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


def collect() -> dict[str, dict[str, Any]]:
    """Return for each package what it says of itself, or the error that importing it gave."""
    asked: dict[str, Callable[[], dict[str, Any]]] = {
        "torch": _torch,
        "horovod": _horovod,
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
