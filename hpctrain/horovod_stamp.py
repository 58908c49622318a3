"""For which torch and MPI was the installed Horovod built?

Reads one small file that the build puts into the wheel; imports neither torch nor Horovod.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path

STAMP_FILE = "hpctrain_build.json"


@dataclass(frozen=True, slots=True)
class HorovodStamp:
    """What a wheel of ours was built for; `cuda` and `nccl` are None in a CPU build."""

    horovod: str
    torch: str
    python: str
    mpi_flavour: str
    mpi_version: str
    cuda: str | None
    nccl: str | None
    key: str

    @property
    def operations(self) -> str:
        """What exchanges tensors: "NCCL" on GPUs, else "MPI"."""
        return "NCCL" if self.nccl else "MPI"


def read_horovod_stamp(site_packages: Path | None = None) -> HorovodStamp | None:
    """Return the stamp of the Horovod that this interpreter would import.

    Args:
        site_packages: look in this folder in place of where the interpreter imports from.

    None where Horovod is not installed, or was not built by `hpctrain install-horovod`.
    """
    folder = site_packages / "horovod" if site_packages else _horovod_folder()
    if folder is None:
        return None
    try:
        values = json.loads((folder / STAMP_FILE).read_text(encoding="utf-8"))
        return HorovodStamp(**{field.name: values[field.name] for field in fields(HorovodStamp)})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _horovod_folder() -> Path | None:
    spec = find_spec("horovod")
    return Path(spec.origin).parent if spec and spec.origin else None
