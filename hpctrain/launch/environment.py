"""Which of the user's variables ranks get. Pure functions.

Ranks on this machine inherit everything, as with any mpirun. Ranks on other hosts get what is
listed here, by name alone: a value in a command line is public on every host.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping, Sequence

from hpctrain.launch.rule import Setting

FORWARDED = (
    "PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONHASHSEED",
    "VIRTUAL_ENV", "CONDA_PREFIX", "LANG", "LC_ALL", "TZ", "OPAL_PREFIX", "I_MPI_ROOT",
    "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "MASTER_ADDR", "MASTER_PORT",
    "OMP_*", "MKL_*", "KMP_*", "NCCL_*", "UCX_*", "FI_*", "GLOO_*", "HOROVOD_*", "HPCTRAIN_*",
    "TORCH_*", "TORCHINDUCTOR_*", "PYTORCH_*", "CUDA_*",
    "TRITON_*", "HF_*", "TRANSFORMERS_*", "TOKENIZERS_*", "WANDB_*", "MLFLOW_*",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip

# Names that people set and nothing reads, with what works in their place.
UNREAD_VARIABLES = {
    "NCCL_TIMEOUT": (
        "NCCL reads no such variable. Horovod's limits are HOROVOD_STALL_CHECK_TIME_SECONDS "
        "(warn) and HOROVOD_STALL_SHUTDOWN_TIME_SECONDS (end the job)"
    ),
}


def plan_forwarding(
    environ: Mapping[str, str], planned: Mapping[str, str], patterns: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the names of the variables for ranks on other hosts, and warnings.

    Args:
        environ: the user's variables.
        planned: the variables that we set; all are forwarded.
        patterns: the user's own additions (``launch.forward``).
    """
    wanted = [
        name
        for name in environ
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in (*FORWARDED, *patterns))
        and name not in UNREAD_VARIABLES
    ]
    warnings = [
        f"launch.forward: no variable of this shell matches '{pattern}'."
        for pattern in patterns
        if not fnmatch.filter([*environ, *planned], pattern)
    ]
    return sorted({*wanted, *planned}), warnings


def plan_path(environ: Mapping[str, str], python: str) -> Setting | None:
    """Put hpctrain's own environment in front of PATH, where no environment is active.

    So that ``.venv/bin/hpctrain run -- python train.py`` finds the python with torch in it.
    """
    folder = os.path.dirname(python)
    parts = environ.get("PATH", os.defpath).split(os.pathsep)
    active = environ.get("VIRTUAL_ENV") or environ.get("CONDA_PREFIX")
    if folder in parts or active:
        return None
    return Setting(
        "env:PATH", os.pathsep.join([folder, *parts]),
        "ranks find the programs of hpctrain's own Python environment first",
        "no environment is activated in this shell", "hpctrain, docs/run.md",
    )  # fmt: skip


def plan_import_path(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a Python on another host needs to find hpctrain as ranks do: it may lie in a
    folder that PYTHONPATH names."""
    return {"PYTHONPATH": environ["PYTHONPATH"]} if environ.get("PYTHONPATH") else {}


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a warning for each variable that is set and that nothing reads."""
    return [f"{name}: {advice}." for name, advice in UNREAD_VARIABLES.items() if name in environ]
