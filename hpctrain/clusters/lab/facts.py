"""What a lab's plan must know about this machine, and how it is asked."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpctrain.clusters.cluster_dir import ClusterDirectory
from hpctrain.clusters.lab.disks import find_disks
from hpctrain.clusters.lab.find import (
    find_inits,
    find_nodes,
    has_foreign_link,
    has_machine_link,
)
from hpctrain.clusters.lab.names import machine_link
from hpctrain.clusters.lab.options import LabOptions, options_from_json
from hpctrain.clusters.lab.owner import (
    describe_foreign_link,
    describe_other_owner,
    find_other_owner,
    refuse_cloud_files,
)
from hpctrain.errors import ClusterError, raise_all
from hpctrain.executor import Command, Executor

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not on every user's PATH
PROGRAMS: Mapping[str, str] = {
    "ip": "iproute2",
    "tc": "iproute2",
    "bridge": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
}
OFFER = "Plain processes on this machine need none of it: hpctrain run --np 4"
# File systems that hold no files of anybody's: nodes get their own, or this machine's as it is.
NO_DISKS = frozenset(
    {
        "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts",
        "devtmpfs", "efivarfs", "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore",
        "ramfs", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system that is mounted on this machine; `is_folder` is False for a single file."""

    path: str
    is_folder: bool = True


@dataclass(frozen=True, slots=True)
class LabFacts:
    """What a plan must know.

    Args:
        folder: the cluster's own directory.
        working_folder: where ``up`` was called.
        search_path: PATH with the folders of system programs.
        networks: CIDRs of this machine's addresses and routes, without the lab's own.
        before: what a lab of this name was asked to be; None for a new one.
        subnet: the network of that lab.
        is_whole: whether its ``up`` came to its end.
        pending: nodes that a later ``up`` began to change and did not say that it had.
        nodes: its nodes, as far as the kernel knows them.
        running: those of them that run.
        has_link: whether this machine has its interface to the lab.
        with_disk: its nodes with a private disk that holds something.
        obstacles: why no lab of this name can be made: what is there is not ours.
        disks: mounted file systems, outer ones first.
    """

    folder: str
    working_folder: str
    host_name: str
    search_path: str
    networks: tuple[str, ...] = ()
    before: LabOptions | None = None
    subnet: str | None = None
    is_whole: bool = False
    pending: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    running: frozenset[str] = frozenset()
    has_link: bool = False
    has_netem: bool = False
    has_tun: bool = False
    has_overlay: bool = False
    disks: tuple[Disk, ...] = ()
    with_disk: frozenset[str] = frozenset()
    obstacles: tuple[str, ...] = ()


def search_path(environ: Mapping[str, str]) -> str:
    """Return PATH with the folders of system programs at its end."""
    parts = environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*parts, *(folder for folder in SBIN if folder not in parts)])


def check_machine(environ: Mapping[str, str]) -> None:
    """Refuse a machine that can have no lab.

    Raises:
        ClusterError: naming all that is missing, and what works in its place.
    """
    if sys.platform != "linux":
        raise ClusterError(
            f"lab: nodes are made of Linux namespaces, got {sys.platform}; expected linux. {OFFER}"
        )
    errors = []
    try:
        check_root()
    except ClusterError as missing:
        errors += missing.messages
    path = search_path(environ)
    absent = sorted({pkg for name, pkg in PROGRAMS.items() if not shutil.which(name, path=path)})
    if absent:
        errors.append(
            f"lab: programs are missing, got no {', '.join(absent)}; expected all of "
            f"{', '.join(sorted(set(PROGRAMS.values())))}. Install them: "
            f"apt-get install {' '.join(absent)}. {OFFER}"
        )
    raise_all(ClusterError, errors)


def check_root() -> None:
    """Refuse anybody but root.

    Raises:
        ClusterError: somebody else asks.
    """
    if os.geteuid() != 0:
        raise ClusterError(
            f"lab: namespaces and links need root, got user id {os.geteuid()}; expected 0. "
            f"Use sudo. {OFFER}"
        )


def gather_lab_facts(
    directory: ClusterDirectory, environ: Mapping[str, str], executor: Executor
) -> LabFacts:
    """Ask this machine; change nothing.

    Raises:
        ClusterError: a lab cannot be made here.
    """
    check_machine(environ)
    path = search_path(environ)
    refuse_cloud_files(directory)
    record = directory.read()
    data = record.provider_data if record else {}
    return LabFacts(
        folder=str(directory.path),
        working_folder=os.getcwd(),
        host_name=socket.gethostname(),
        search_path=path,
        networks=networks_in_use(executor, path, machine_link(directory.name)),
        before=options_from_json(data["options"]) if data else None,
        subnet=data.get("subnet"),
        is_whole=record is not None and record.state == "up",
        pending=frozenset(data.get("pending", ())),
        nodes=frozenset(find_nodes(directory.name)),
        running=frozenset(find_inits(directory.name)),
        has_link=has_machine_link(directory.name),
        has_netem=_has_netem(executor, path),
        has_tun=os.access("/dev/net/tun", os.R_OK | os.W_OK),
        has_overlay="overlay" in Path("/proc/filesystems").read_text().split(),
        disks=parse_mounts(Path("/proc/self/mountinfo").read_text(), os.path.isdir),
        with_disk=frozenset(find_disks(directory, written=True)),
        obstacles=tuple(_find_obstacles(directory)),
    )


def _find_obstacles(directory: ClusterDirectory) -> list[str]:
    name, owner = directory.name, find_other_owner(directory)
    found = [describe_other_owner(name, owner)] if owner else []
    return found + ([describe_foreign_link(name)] if has_foreign_link(name) else [])


def networks_in_use(executor: Executor, path: str, own_link: str) -> tuple[str, ...]:
    """Return the networks of this machine's addresses and routes, but for the lab's own.

    Raises:
        ClusterError: ip does not say.
    """
    answers = []
    for words in (("addr", "show"), ("route", "show", "table", "all")):
        command = Command(("ip", "-j", "-4", *words), {"PATH": path})
        done = executor.run(command, timeout_s=10)
        if not done.ok:
            raise ClusterError(f"ip {' '.join(words)}: {done.last_words}.")
        answers.append(json.loads(done.stdout or "[]"))
    return parse_networks(answers[0], answers[1], own_link)


def parse_networks(
    addresses: list[dict[str, Any]], routes: list[dict[str, Any]], own_link: str
) -> tuple[str, ...]:
    """Return the CIDRs in the answers of ``ip -j addr`` and ``ip -j route``; no default route.

    >>> parse_networks([{"ifname": "eth0", "addr_info": [{"local": "10.1.2.3", "prefixlen": 8}]}],
    ...                [{"dst": "default", "dev": "eth0"}, {"dst": "192.0.2.7", "dev": "tun0"}], "")
    ('10.1.2.3/8', '192.0.2.7')
    """
    found = [
        f"{info['local']}/{info['prefixlen']}"
        for link in addresses
        if link.get("ifname") != own_link
        for info in link.get("addr_info", ())
        if "local" in info
    ]
    found += [
        route["dst"]
        for route in routes
        if route.get("dev") != own_link and route.get("dst", "default") != "default"
    ]
    return tuple(dict.fromkeys(found))


def parse_mounts(text: str, is_folder: Any) -> tuple[Disk, ...]:
    """Return what holds files, from ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)).

    >>> parse_mounts("27 1 254:0 / / rw - ext4 /dev/vda rw\\n22 27 0:21 / /proc rw - proc proc rw",
    ...              lambda path: True)
    (Disk(path='/', is_folder=True),)
    """
    found: dict[str, None] = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        path = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4])
        pseudo = path.startswith(("/proc/", "/sys/", "/dev/", "/run/")) or path == "/run"
        found.pop(path, None)  # what was mounted there before is hidden now
        if after.split()[0] not in NO_DISKS and not pseudo:
            found[path] = None
    return tuple(Disk(path, bool(is_folder(path))) for path in sorted(found))


def _has_netem(executor: Executor, path: str) -> bool:
    """Try it, in a network namespace that ends at once."""
    words = ("unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
    return executor.run(Command(words, {"PATH": path}), timeout_s=10).ok
