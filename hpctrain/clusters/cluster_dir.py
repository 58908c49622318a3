"""One cluster's own directory: what it is, its hostfile, its ssh configuration, its lock.

::

    ${XDG_STATE_HOME:-~/.local/state}/hpctrain/clusters/NAME/     mode 700
      cluster.json   the record below; written whole or not at all
      hostfile       what `hpctrain run --hosts` reads
      ssh_config     beside the hostfile, where `hpctrain run` looks for one
      .lock          held while the cluster is made, changed or taken down

Whatever else a provider keeps (keys, Terraform's state) lies here too, never in a repository.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpctrain.clusters.file_lock import hold_file, remove_held_file, take
from hpctrain.errors import ClusterError, ConfigError, did_you_mean

SCHEMA = 1
STATES = ("creating", "up", "destroying")
LOCK_PATIENCE_S = 0.2  # a look at the lock, by `status`, holds it for a moment
RECORD_FILE, LOCK_FILE = "cluster.json", ".lock"
# Clouds make resource names of it, and GCP's are the narrowest: lower case, at most 63 letters.
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node: `address` is the one that other nodes use, `public_address` the one from outside."""

    name: str
    address: str
    slots: int
    public_address: str | None = None


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """What ``cluster.json`` holds.

    Args:
        state: creating, up or destroying; one that stays creating was left by a crash.
        reachable_from_here: whether this machine reaches the nodes' own addresses, so that
            ranks can be started from here.
        hostfile_links: links that `up` made, for `down` to remove.
        provider_data: what the provider needs to find its things again; no secrets.
    """

    name: str
    provider: str
    created_s: float
    state: str
    nodes: tuple[ClusterNode, ...] = ()
    reachable_from_here: bool = False
    hostfile_links: tuple[str, ...] = ()
    provider_data: Mapping[str, Any] = field(default_factory=dict)


class ClusterDirectory:
    """A cluster's directory, which need not be there yet."""

    def __init__(self, name: str, root: Path) -> None:
        check_cluster_name(name)
        self.name = name
        self.path = root / name

    @property
    def hostfile(self) -> Path:
        return self.path / "hostfile"

    @property
    def ssh_config(self) -> Path:
        return self.path / "ssh_config"

    def read(self) -> ClusterRecord | None:
        """Return the record, None where there is none.

        Raises:
            ClusterError: the file is there and cannot be understood.
        """
        path = self.path / RECORD_FILE
        try:
            return record_from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise ClusterError(
                f"{path}: cannot be read: {problem}; expected schema {SCHEMA} of this hpctrain. "
                "What this machine's kernel knows of a lab is removed by its name: "
                f"hpctrain cluster down --name {self.name}."
            ) from problem

    def write(self, record: ClusterRecord) -> None:
        """Write the record; call it with the lock held."""
        text = json.dumps({"schema": SCHEMA, **asdict(record)}, indent=2)
        self.write_text(RECORD_FILE, text + "\n")

    def write_text(self, name: str, text: str, mode: int = 0o600) -> None:
        """Write a whole file: complete or as it was."""
        target = self.path / name
        draft = target.with_name(f".{name}.tmp")
        draft.unlink(missing_ok=True)  # left by a crash, perhaps with another mode
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
        draft.replace(target)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cluster for the length of a block, and make its directory if needed.

        A lock ends with its process, however that ends.

        Raises:
            ClusterError: another process holds it, or the directory cannot be made.
        """
        lock = self._lock()
        try:
            yield
        finally:
            # Looked at and removed before the lock ends: then both are the next process's.
            with contextlib.suppress(OSError):  # gone already
                if [entry.name for entry in self.path.iterdir()] == [LOCK_FILE]:
                    remove_held_file(lock, self.path / LOCK_FILE)
            os.close(lock)

    def is_locked(self) -> bool:
        """Return whether another process is changing the cluster just now."""
        try:
            lock = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not take(lock)
        finally:
            os.close(lock)

    def is_bare(self) -> bool:
        """Return whether it holds nothing but the lock, and a record that was not finished."""
        try:
            found = {entry.name for entry in self.path.iterdir()}
        except OSError:
            return False
        return found <= {LOCK_FILE, f".{RECORD_FILE}.tmp"}

    def remove(self) -> None:
        """Remove the directory with all that is in it, with the lock held: that goes last."""
        with contextlib.suppress(OSError):
            for entry in self.path.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                elif entry.name != LOCK_FILE:
                    entry.unlink(missing_ok=True)
            (self.path / LOCK_FILE).unlink(missing_ok=True)
            self.path.rmdir()

    def _lock(self) -> int:
        try:
            lock = hold_file(self.path / LOCK_FILE, LOCK_PATIENCE_S)
        except OSError as problem:
            raise ClusterError(f"{self.path}: cannot be made: {problem.strerror}.") from problem
        if lock is None:
            raise ClusterError(
                f"{self.name}: another hpctrain is making, changing or removing this "
                "cluster just now. Wait for it, or choose another --name."
            )
        return lock


def check_cluster_name(name: str) -> None:
    """Refuse what is no name of a cluster.

    Raises:
        ConfigError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--name: no name for a cluster, got '{name}'; expected lower-case letters, digits "
            "and '-', a letter first, at most 32 of them."
        )


def clusters_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of all clusters (XDG Base Directory specification 0.8)."""
    base = environ.get("XDG_STATE_HOME", "")
    home = environ.get("HOME") or os.path.expanduser("~")
    state = Path(base if os.path.isabs(base) else os.path.join(home, ".local", "state"))
    return state / "hpctrain" / "clusters"


def list_clusters(environ: Mapping[str, str]) -> list[ClusterDirectory]:
    """Return the directories of all clusters, also of those that a crash left half-made."""
    root = clusters_folder(environ)
    names = sorted(path.name for path in root.glob("*") if path.is_dir())
    return [ClusterDirectory(name, root) for name in names if _NAME.fullmatch(name)]


def find_cluster(name: str, environ: Mapping[str, str], where: str = "--name") -> ClusterDirectory:
    """Return the directory of a cluster that is there.

    Args:
        where: the option that names it, for the message.

    Raises:
        ConfigError: there is none of this name; the message lists those there are.
    """
    check_cluster_name(name)
    known = {cluster.name: cluster for cluster in list_clusters(environ)}
    if name not in known:
        expected = f"one of {', '.join(known)}" if known else "one, and there is none"
        raise ConfigError(
            f"{where}: no such cluster, got '{name}'; expected {expected}. "
            f"Make it: hpctrain cluster up --name {name}.{did_you_mean(name, known)}"
        )
    return known[name]


def record_from_json(table: Mapping[str, Any]) -> ClusterRecord:
    """Return the record that ``cluster.json`` holds.

    Raises:
        ValueError, KeyError, TypeError: it is not one of this schema.
    """
    if table["schema"] != SCHEMA or table["state"] not in STATES:
        raise ValueError(f"schema {table['schema']}, state {table['state']}")
    fields = {name: table[name] for name in ClusterRecord.__dataclass_fields__}
    fields["nodes"] = tuple(ClusterNode(**node) for node in table["nodes"])
    fields["hostfile_links"] = tuple(table["hostfile_links"])
    return ClusterRecord(**fields)
