"""What one host has that sets variables: its environment and files, asked there; as a value.

``python -m hpctrain.variables.host`` prints a host's as JSON. Only variables that the libraries
read leave it, never a secret of another kind.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpctrain.variables.files import (
    PROFILE_FILES,
    PROFILE_FOLDER,
    config_files,
    is_read_by_libraries,
    parse_profile,
)

MOST_BYTES = 65536
MARK = "hpctrain-variables:"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostVariables:
    """Where variables come from on one host.

    Args:
        environ: of a login there that asks nothing, as mpirun's own is.
        config: path → text of the libraries' configuration files that exist.
        profiles: path → variables that a shell's start-up file assigns.
        first_process: those of process 1: what a container's image brings.
        interfaces: names of the network interfaces that are up.
        home: the user's there.
    """

    environ: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    first_process: Mapping[str, str] = field(default_factory=dict)
    interfaces: tuple[str, ...] = ()
    home: str = ""


def probe_variables(environ: Mapping[str, str], mpi_prefix: str) -> HostVariables:
    """Return this host's.

    Args:
        mpi_prefix: MPI's folder, above bin/.
    """
    paths = [_expand(file.path, mpi_prefix) for file in config_files(environ)]
    profiles = [*map(os.path.expanduser, PROFILE_FILES), *sorted(_scripts(PROFILE_FOLDER))]
    return HostVariables(
        environ=_ours(environ),
        config={path: text for path in dict.fromkeys(paths) if (text := _read(path)) is not None},
        profiles={path: found for path in profiles if (found := _ours(_assigned(path)))},
        first_process=_ours(_environ_of(1)),
        interfaces=_interfaces(),
        home=os.path.expanduser("~"),
    )


def _expand(path: str, mpi_prefix: str) -> str:
    return os.path.expanduser(path.replace("{mpi}", mpi_prefix))


def _ours(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if is_read_by_libraries(name)}


def _scripts(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".sh")]
    except OSError:
        return []


def _assigned(path: str) -> dict[str, str]:
    return parse_profile(_read(path) or "")


def _environ_of(process: int) -> dict[str, str]:
    text = _read(f"/proc/{process}/environ") or ""
    pairs = (entry.partition("=") for entry in text.split("\0"))
    return {name: value for name, equals, value in pairs if equals}


def _interfaces() -> tuple[str, ...]:
    import psutil

    return tuple(sorted(name for name, stats in psutil.net_if_stats().items() if stats.isup))


def _read(path: str) -> str | None:
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return file.read(MOST_BYTES)
    except OSError:
        return None


def host_variables_from_json(value: Any) -> HostVariables:
    """Return what :func:`probe_variables` found on another host.

    Raises:
        ValueError: it is none.
    """
    import msgspec

    return msgspec.convert(value, HostVariables)


if __name__ == "__main__":
    named = {"NCCL_CONF_FILE": sys.argv[2]} if len(sys.argv) > 2 else {}
    print(MARK + json.dumps(asdict(probe_variables({**os.environ, **named}, sys.argv[1]))))
