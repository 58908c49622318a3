"""How is Horovod built for this torch and this MPI, and where does its wheel come from?

The plan is pure (:func:`plan_horovod_build`); :func:`run_horovod_build` carries it out. Wheels
are kept per combination of everything that their binary code depends on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from hpctrain.errors import BuildError
from hpctrain.executor import Command, LocalExecutor, with_path
from hpctrain.horovod_facts import BuildFacts
from hpctrain.horovod_recipe import (
    CHANGES,
    SDIST,
    SDIST_SHA256,
    VERSION,
    Change,
    apply_changes,
    recipe_hash,
)
from hpctrain.horovod_stamp import STAMP_FILE, HorovodStamp, read_horovod_stamp

__all__ = ["BuildPlan", "plan_horovod_build", "read_horovod_stamp", "run_horovod_build"]

DOWNLOAD_TIMEOUT_S = 600.0
TAIL_LINES = 24
TORCH_LIB = "$ORIGIN/../../torch/lib"
NCCL_LIB = "$ORIGIN/../../nvidia/nccl/lib"
_PERCENT = re.compile(r"^\s*\[\s*(\d+)%\]")


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """Everything that the build will do; `key` names the wheel's folder in the cache."""

    key: str
    download: Command
    build: Command
    changes: tuple[Change, ...]
    stamp: HorovodStamp
    nccl_library: str | None
    reasons: tuple[str, ...]


def plan_horovod_build(facts: BuildFacts) -> BuildPlan:
    """Return how to build Horovod for these facts: download, changes, argv and environment.

    Sources: Horovod 0.28.1 docs/install.rst (variables); CMake 4 release notes (policy minimum).
    """
    gpu = facts.gpu
    stamp = HorovodStamp(
        horovod=VERSION,
        torch=facts.torch,
        python=facts.python_tag,
        mpi_flavour=facts.mpi_flavour,
        mpi_version=facts.mpi_version,
        cuda=gpu.cuda if gpu else None,
        nccl=gpu.nccl if gpu else None,
        key=_key(facts),
    )
    download = Command(
        (facts.python, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--retries",
         "2", "--no-build-isolation", "--quiet", "--disable-pip-version-check",
         f"horovod=={VERSION}")
    )  # fmt: skip
    operations = f"NCCL {gpu.nccl}, CUDA {gpu.cuda}" if gpu else f"CPU ({facts.no_gpu_reason})"
    reasons = (
        f"Horovod {VERSION} for torch {facts.torch}, {facts.python_tag}",
        f"MPI: {facts.mpi_flavour} {facts.mpi_version}, {facts.mpicxx}",
        f"GPU operations: {operations}",
        "without Gloo: mpirun starts the ranks, and Gloo would lengthen the build",
    )
    return BuildPlan(
        key=stamp.key,
        download=download,
        build=Command((facts.python, "setup.py", "bdist_wheel"), _build_environment(facts)),
        changes=CHANGES,
        stamp=stamp,
        nccl_library=gpu.nccl_library if gpu else None,
        reasons=reasons,
    )


def _build_environment(facts: BuildFacts) -> dict[str, str]:
    mpi_lib = facts.mpi_lib
    if mpi_lib.startswith(facts.prefix + os.sep):
        inside = os.path.relpath(mpi_lib, os.path.join(facts.site_packages, "horovod", "torch"))
        mpi_lib = f"$ORIGIN/{inside}"
    tools = (os.path.dirname(facts.mpicxx), os.path.dirname(facts.cmake))
    environment = {
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",  # CMake 4 refuses the sdist's older minimum
        "HOROVOD_BUILD_ARCH_FLAGS": " ".join(facts.arch_flags),
        "HOROVOD_CMAKE": facts.cmake,
        "HOROVOD_WITHOUT_GLOO": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITH_PYTORCH": "1",
        "HPCTRAIN_RPATH": f"{TORCH_LIB};{mpi_lib}",
        "MAKEFLAGS": f"-j{facts.cores}",
        "PATH": with_path({"PATH": facts.path}, tools),
    }
    if facts.torch_cuda is None:
        environment["HPCTRAIN_WITHOUT_CUDA"] = "1"
    if gpu := facts.gpu:
        environment |= {
            "CUDA_HOME": gpu.cuda_home,  # without it torch does not count as a CUDA torch
            "CPATH": os.pathsep.join(gpu.include_folders),
            "HOROVOD_BUILD_CUDA_CC_LIST": ",".join(gpu.compute_capabilities),
            "HOROVOD_CUDA_HOME": gpu.cuda_home,
            "HOROVOD_GPU_OPERATIONS": "NCCL",
            "HOROVOD_NCCL_INCLUDE": gpu.nccl_include,
            "HOROVOD_NCCL_LINK": "SHARED",
            "HPCTRAIN_RPATH": f"{TORCH_LIB};{NCCL_LIB};{mpi_lib}",
        }
    return environment


def _key(facts: BuildFacts) -> str:
    """Name the combination: readable parts first, then a hash of all that matters."""
    gpu = facts.gpu
    accelerator = f"cu{gpu.cuda}-nccl{gpu.nccl}" if gpu else "cpu"
    everything = [
        recipe_hash(), facts.torch, facts.python_tag, facts.machine, facts.arch_flags,
        facts.mpi_flavour, facts.mpi_version, accelerator,
        gpu.compute_capabilities if gpu else (),
        "" if facts.mpi_lib.startswith(facts.prefix + os.sep) else facts.mpi_lib,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:10]
    return (
        f"horovod{VERSION}-torch{facts.torch}-{facts.python_tag}-{facts.mpi_flavour}-"
        f"{facts.mpi_version}-{accelerator}-{digest}"
    )


def run_horovod_build(
    plan: BuildPlan, cache: Path, say: Callable[[str], None], *, force: bool = False
) -> Path:
    """Return the wheel of `plan` from the folder `cache`, building it where it is missing.

    Two builds of the same wheel at once do the work once: the second waits for the first.

    Raises:
        BuildError: the download, its hash, a change or the build failed.
    """
    folder = cache / plan.key
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / "lock", say):
        kept = sorted(folder.glob("*.whl"))
        if kept and not force:
            say(f"taken from the cache: {kept[0]}")
            return kept[0]
        log = folder / "build.log"
        with tempfile.TemporaryDirectory(prefix="hpctrain-horovod-") as scratch:
            source = _unpacked_sdist(plan, Path(scratch))
            for change in plan.changes:
                say(f"change {change.file}: {change.why}")
            apply_changes(source, plan.changes)
            stamp = json.dumps(asdict(plan.stamp), indent=1)
            (source / "horovod" / STAMP_FILE).write_text(stamp, encoding="utf-8")
            _compile(_with_nccl(plan, Path(scratch)), source, log, say)
            built = next(iter((source / "dist").glob("*.whl")), None)
            if built is None:
                raise BuildError(_failure(log, "the build left no wheel"))
            draft = folder / f".{built.name}.{os.getpid()}"
            draft.write_bytes(built.read_bytes())
            return draft.rename(folder / built.name)


def _unpacked_sdist(plan: BuildPlan, scratch: Path) -> Path:
    download = Command((*plan.download.argv, "--dest", str(scratch)))
    done = LocalExecutor().run(download, timeout_s=DOWNLOAD_TIMEOUT_S)
    archive = scratch / SDIST
    if not archive.is_file():
        raise BuildError(
            f"Horovod's source: pip could not download it, got {done.last_words!r}; expected "
            f"{SDIST}. Check pip's index and the network, or put the file into a folder and set "
            "PIP_FIND_LINKS to it."
        )
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        raise BuildError(
            f"{SDIST}: sha256 is wrong, got {digest}; expected {SDIST_SHA256}. "
            "Do not build from it: find out where pip's index takes it from."
        )
    with tarfile.open(archive) as tar:
        tar.extractall(scratch)  # the hash above says which archive this is
    return scratch / SDIST.removesuffix(".tar.gz")


def _with_nccl(plan: BuildPlan, scratch: Path) -> Command:
    """Give the linker a libnccl.so: torch's wheel has libnccl.so.2 alone."""
    if plan.nccl_library is None:
        return plan.build
    folder = scratch / "nccl"
    folder.mkdir()
    (folder / "libnccl.so").symlink_to(plan.nccl_library)
    return Command(plan.build.argv, {**plan.build.env, "HOROVOD_NCCL_LIB": str(folder)})


def _compile(command: Command, source: Path, log: Path, say: Callable[[str], None]) -> None:
    started_s = time.monotonic()
    reader, writer = os.pipe()
    process = LocalExecutor().start(
        command,
        stdout=writer,
        stderr=writer,
        cwd=source,
        parent_death_signal=signal.SIGTERM,
        new_session=False,  # Ctrl-C at the terminal stops the compilers too
    )
    os.close(writer)
    with open(reader, "rb") as lines, log.open("wb") as file:
        for line in lines:
            file.write(line)
            if match := _PERCENT.match(line.decode(errors="replace")):
                say(f"compiling {match[1]:>3} % {time.monotonic() - started_s:4.0f} s")
    if process.wait() != 0:
        raise BuildError(_failure(log, f"the build ended with exit code {process.returncode}"))


def _failure(log: Path, problem: str) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    # setup.py's traceback says only that CMake failed; the compiler's words stand before it.
    said = text.split("\nTraceback (most recent call last)")[0].splitlines()
    return "\n".join(
        [f"Horovod {VERSION}: {problem}; its last lines:",
         *(f"    {line}" for line in said[-TAIL_LINES:]),
         f"The whole log: {log}. Everything but the horovod communicator works without it."]
    )  # fmt: skip


@contextmanager
def _lock(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build of the same wheel is under way: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
