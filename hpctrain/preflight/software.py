"""What a host runs besides its Python packages: hpctrain, kernel, driver, code, NCCL files."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hpctrain
from hpctrain.executor import Command, LocalExecutor
from hpctrain.preflight.check import Probe
from hpctrain.preflight.task import NodeTask

GIT_TIMEOUT_S = 10.0
DRIVER_FILE = "/proc/driver/nvidia/version"
_LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/lib",
    "/usr/local/nccl/lib", "/usr/local/cuda/lib64",
)  # fmt: skip


def look_at_software(task: NodeTask) -> dict[str, Any]:
    """Ask this host what it runs; a few small files, and git."""
    from hpctrain.launch.git_commit import git_commit

    try:
        driver = parse_driver_version(Path(DRIVER_FILE).read_text(encoding="utf-8"))
    except OSError:
        driver = ""
    return {
        "hpctrain": hpctrain.__version__,
        "kernel": os.uname().release,
        "driver": driver,
        "commit": git_commit() or "",
        "changes": _digest_changes(),
        "nccl_files": find_nccl_files(os.environ),
    }


SOFTWARE = Probe("software", look_at_software)


def parse_driver_version(text: str) -> str:
    """Return the driver's version from /proc/driver/nvidia/version; empty where it has none.

    >>> parse_driver_version("NVRM version: NVIDIA UNIX x86_64 Kernel Module  515.65.01  Wed …")
    '515.65.01'
    """
    match = re.search(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", text, re.MULTILINE)
    return match[1] if match else ""


def find_nccl_files(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the NCCL libraries where the linker looks: path → version, as far as names tell it."""
    folders = [*filter(None, environ.get("LD_LIBRARY_PATH", "").split(":")), *_LIBRARY_FOLDERS]
    found = {}
    for folder in dict.fromkeys(folders):
        path = Path(folder) / "libnccl.so.2"
        try:
            if path.is_file():
                found[str(path)] = path.resolve().name.partition("libnccl.so.")[2]
        except OSError:
            continue
    return found


def _digest_changes() -> str:
    """Return a short digest of what git shows as changed here; empty for nothing, or no git."""
    argv = ("git", "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv")
    done = LocalExecutor().run(Command(argv), timeout_s=GIT_TIMEOUT_S)
    if not done.ok or not done.stdout:
        return ""
    return hashlib.sha256(done.stdout.encode()).hexdigest()[:8]
