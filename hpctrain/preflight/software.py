"""What a host runs besides its Python packages: hpctrain, kernel, driver, code, NCCL files."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hpctrain
from hpctrain.executor import Command, LocalExecutor
from hpctrain.launch.git_commit import git_commit
from hpctrain.preflight.check import Probe
from hpctrain.preflight.task import NodeTask
from hpctrain.probe_fabric import NCCL_FOLDERS

GIT_TIMEOUT_S = 10.0
DRIVER_FILE = "/proc/driver/nvidia/version"


def look_at_software(task: NodeTask) -> dict[str, Any]:
    """Ask this host what it runs; a few small files, and git."""
    try:
        driver = parse_driver_version(Path(DRIVER_FILE).read_text(encoding="utf-8"))
    except OSError:
        driver = ""
    return {
        "hpctrain": hpctrain.__version__,
        "kernel": os.uname().release,
        "driver": driver,
        **look_at_commit(task),
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
    standard = [folder for pattern in NCCL_FOLDERS for folder in sorted(glob.glob(pattern))]
    folders = [*filter(None, environ.get("LD_LIBRARY_PATH", "").split(":")), *standard]
    found = {}
    for folder in dict.fromkeys(folders):
        path = Path(folder) / "libnccl.so.2"
        try:
            if path.is_file():
                found[str(path)] = path.resolve().name.partition("libnccl.so.")[2]
        except OSError:
            continue
    return found


def look_at_commit(task: NodeTask) -> dict[str, str]:
    """Return the commit here, a digest of what git shows as changed, and why that is not known.

    Empty is a commit where there is no checkout, and a digest where nothing is changed.
    """
    unknown = {"commit": "", "changes": "", "git_problem": ""}
    if os.path.realpath(os.getcwd()) != os.path.realpath(task.cwd):
        return {**unknown, "git_problem": f"{task.cwd} is not there"}
    commit = git_commit()
    if commit is None:
        return unknown
    argv = ("git", "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv")
    done = LocalExecutor().run(Command(argv), timeout_s=GIT_TIMEOUT_S)
    if not done.ok:
        why = (done.stderr.strip() or done.last_words).splitlines()[0]
        return {**unknown, "commit": commit, "git_problem": f"git: {why.removeprefix('git: ')}"}
    digest = hashlib.sha256(done.stdout.encode()).hexdigest()[:8] if done.stdout else ""
    return {**unknown, "commit": commit, "changes": digest}
