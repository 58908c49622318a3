"""What is changed in Horovod's last release so that it builds against today's torch, and why.

Each change is a text that must stand in the file as often as it says; a source in which it
does not is another source than this recipe is for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from hpctrain.errors import BuildError, raise_all
from hpctrain.horovod_stamp import STAMP_FILE

VERSION = "0.28.1"
SDIST = f"horovod-{VERSION}.tar.gz"
SDIST_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"


@dataclass(frozen=True, slots=True)
class Change:
    """One replacement in one file of the source."""

    file: str
    old: str
    new: str
    why: str
    count: int = 1


CPP17 = "torch's headers are C++17 since 2.1"
FAST = "torch/extension.h pulls in all of torch.nn; these headers hold what is used, and compile "

CHANGES = (
    Change("CMakeLists.txt", "CMAKE_CXX_STANDARD 14", "CMAKE_CXX_STANDARD 17", CPP17),
    Change("horovod/torch/CMakeLists.txt", "CXX_STANDARD 14", "CXX_STANDARD 17", CPP17),
    Change(
        "CMakeLists.txt",
        "${CMAKE_CUDA_FLAGS} -std=c++11",
        "${CMAKE_CUDA_FLAGS} -std=c++17",
        CPP17 + ", in CUDA on POWER too",
    ),
    Change(
        "horovod/common/ops/cuda/CMakeLists.txt",
        "CMAKE_CUDA_STANDARD 11",
        "CMAKE_CUDA_STANDARD 17",
        CPP17 + ", in CUDA too",
    ),
    Change(
        "horovod/torch/adapter_v2.h",
        "#include <torch/extension.h>\n#include <torch/torch.h>",
        "#include <torch/types.h>",
        FAST + "in 7 s, not 18",
    ),
    Change(
        "horovod/torch/mpi_ops_v2.cc",
        "#include <torch/extension.h>\n#include <torch/torch.h>",
        "#include <torch/csrc/utils/pybind.h>\n#include <torch/types.h>",
        FAST + "in 16 s, not 22",
    ),
    Change(
        "horovod/torch/CMakeLists.txt",
        "SHARED ${SOURCES} ${PYTORCH_SOURCES})",
        "SHARED ${PYTORCH_SOURCES} ${SOURCES})",
        "the slowest files first, so that no core waits for them at the end",
    ),
    Change(
        "CMakeLists.txt",
        "include(CheckLanguage)\ncheck_language(CUDA)\nif(NOT CMAKE_CUDA_COMPILER)",
        "include(CheckLanguage)\nif(NOT DEFINED ENV{HPCTRAIN_WITHOUT_CUDA})\n"
        "    check_language(CUDA)\nendif()\n"
        "if(NOT DEFINED ENV{HPCTRAIN_WITHOUT_CUDA} AND NOT CMAKE_CUDA_COMPILER)",
        "a CPU build must not depend on an nvcc that happens to be here, nor try it out",
    ),
    Change(
        "setup.py",
        "else 'RelWithDebInfo'",
        "else 'Release'",
        "the same -O3 without debug information, which takes a third of the compile time",
    ),
    Change(
        "horovod/torch/CMakeLists.txt",
        'PROPERTIES OUTPUT_NAME "mpi_lib_v2")',
        'PROPERTIES OUTPUT_NAME "mpi_lib_v2"\n'
        '    BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ENV{HPCTRAIN_RPATH}")',
        "find torch and MPI relative to where the wheel is installed, not where it was built",
    ),
    Change(
        "setup.py",
        "zip_safe=False,",
        f"zip_safe=False, package_data={{'horovod': ['{STAMP_FILE}']}},",
        "the wheel says which torch and which MPI it was built for",
    ),
)


def apply_changes(source: Path, changes: tuple[Change, ...] = CHANGES) -> None:
    """Make every change in the unpacked source, or none.

    Raises:
        BuildError: naming every text that is not there as often as expected.
    """
    texts: dict[str, str] = {}
    problems = []
    for change in changes:
        path = source / change.file
        text = texts.get(change.file)
        if text is None:
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
        found = text.count(change.old)
        if found != change.count:
            problems.append(
                f"{change.file}: cannot be changed, got {found} times {change.old!r}; expected "
                f"{change.count}. Is this the source of Horovod {VERSION}?"
            )
        texts[change.file] = text.replace(change.old, change.new)
    raise_all(BuildError, problems)
    for name, text in texts.items():
        (source / name).write_text(text, encoding="utf-8")


def recipe_hash() -> str:
    """Return 12 hexadecimal digits that change with the sdist or any change to it."""
    text = json.dumps([SDIST_SHA256, [asdict(change) for change in CHANGES]])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
