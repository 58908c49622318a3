"""What do the tests need, is it here, and what brings it?

`require("mpirun")` skips a test (or, at the top of a module, the module) where mpirun is
missing. The variable HPCTRAIN_REQUIRE, a comma list, turns the skip into a failure.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import checkov_tool
import mpi_flavours
import pytest
import terraforming

from hpctrain.clusters.cloud.versions import find_terraform
from hpctrain.errors import HpctrainError
from hpctrain.executor import LocalExecutor
from hpctrain.launch.find_mpi import find_mpi

VARIABLE = "HPCTRAIN_REQUIRE"
SBIN = ":/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Piece:
    """Something that tests need. `probe` returns why it is missing, "" where it is here."""

    name: str
    probe: Callable[[], str]
    brings: str


def _no_mpirun() -> str:
    try:
        find_mpi(os.environ, LocalExecutor())
    except HpctrainError as missing:
        return str(missing)
    return ""


def _no_module(name: str) -> str:
    return "" if find_spec(name) else f"{name} is not installed"


def _no_program(*names: str) -> str:
    path = os.environ.get("PATH", os.defpath) + SBIN
    absent = [name for name in names if not shutil.which(name, path=path)]
    return f"{', '.join(absent)} not on PATH" if absent else ""


def _no_namespaces() -> str:
    if missing := _no_program("ip", "unshare", "nsenter"):
        return missing
    kinds = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork"]
    done = subprocess.run(["unshare", *kinds, "true"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"namespaces are refused: {done.stderr.strip()}"


def _no_cuda() -> str:
    if missing := _no_module("torch"):
        return missing
    import torch

    return "" if torch.cuda.is_available() else "torch sees no CUDA device"


def _no_flavour(name: str) -> str:
    try:
        mpi_flavours.install(name)
    except mpi_flavours.FlavourMissing as missing:
        return str(missing)
    return ""


def _no_terraform() -> str:
    if missing := _no_program("terraform") or _no_module("python_terraform"):
        return missing
    try:
        find_terraform(os.environ)
    except HpctrainError as wrong:
        return str(wrong)
    return ""


def _no_aws_provider() -> str:
    if missing := _no_terraform():
        return missing
    return terraforming.why_no_provider("hashicorp/aws")


def _no_checkov() -> str:
    try:
        checkov_tool.install()
    except checkov_tool.CheckovMissing as missing:
        return str(missing)
    return ""


PIECES: Mapping[str, Piece] = {
    piece.name: piece
    for piece in (
        Piece("mpirun", _no_mpirun, "make setup"),
        Piece("torch", lambda: _no_module("torch"), "make setup"),
        Piece("tokenizers", lambda: _no_module("tokenizers"), "make setup"),
        Piece("horovod", lambda: _no_module("horovod"), "make setup"),
        Piece("g++", lambda: _no_program("g++"), "apt-get install g++"),
        *(
            Piece(name, functools.partial(_no_flavour, name), f"pip's index with {spec}")
            for name, spec in mpi_flavours.WHEELS.items()
        ),
        Piece("sshd", lambda: _no_program("sshd", "ssh", "ssh-keygen"), "make test-deps"),
        Piece("rsync", lambda: _no_program("rsync"), "make test-deps"),
        Piece("netns", _no_namespaces, "make test-deps, as root on Linux"),
        Piece("terraform", _no_terraform, "https://developer.hashicorp.com/terraform/install"),
        Piece("aws-provider", _no_aws_provider, "a mirror (HPCTRAIN_TF_MIRROR) or the network"),
        Piece("moto", lambda: _no_module("moto") or _no_module("boto3"), "make test"),
        Piece("google-standin", lambda: _no_module("tf"), "make test"),
        Piece("checkov", _no_checkov, f"pip's index with checkov {checkov_tool.VERSION}"),
        Piece("cuda", _no_cuda, "a machine with an NVIDIA GPU"),
    )
}

# What every test of a folder needs, on top of what it asks for itself.
FOLDERS: Mapping[str, tuple[str, ...]] = {
    "unit": (),
    "integration": (),
    "multinode": ("sshd", "netns"),
    "terraform": ("terraform",),
    "gpu": ("cuda",),
}


def required(environ: Mapping[str, str] = os.environ) -> set[str]:
    """Return the pieces that must not be missing.

    Raises:
        pytest.UsageError: HPCTRAIN_REQUIRE names an unknown piece.
    """
    names = {name.strip() for name in environ.get(VARIABLE, "").split(",") if name.strip()}
    if unknown := names - PIECES.keys():
        raise pytest.UsageError(
            f"{VARIABLE}: unknown piece, got {', '.join(sorted(unknown))}; "
            f"expected some of {', '.join(PIECES)}."
        )
    return names


@functools.cache
def missing(name: str) -> str:
    """Return why a piece is missing, "" where it is here; each is looked for once."""
    return PIECES[name].probe()


def require(*names: str) -> None:
    """Go on where every piece is here; else skip, or fail where the piece is required."""
    for name in names:
        reason = missing(name)
        if reason and name in required():
            pytest.fail(f"{name} is required by {VARIABLE}: {reason}", pytrace=False)
        if reason:
            pytest.skip(f"{name}: {reason}", allow_module_level=True)
