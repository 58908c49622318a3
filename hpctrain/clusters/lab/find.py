"""What is there of labs? Asked of the kernel, not of our own notes, which a crash leaves behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from hpctrain.clusters.lab.names import (
    NAMESPACE_FOLDER,
    SWITCH,
    Space,
    machine_link,
    marked_folder,
    parse_space,
)

LINKS = Path("/sys/class/net")
CPU_GROUP_FOLDERS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu"))


class Process(NamedTuple):
    """A process in a lab's namespace.

    Args:
        is_init: the first of a PID namespace of its own: a node's.
        is_within: in a PID namespace of its own, so a node's own program.
    """

    pid: int
    space: Space
    is_init: bool
    is_within: bool


def find_spaces() -> list[Space]:
    """Return the network namespaces of all labs."""
    try:
        names = sorted(os.listdir(NAMESPACE_FOLDER))
    except OSError:
        return []
    return [space for name in names if (space := parse_space(name))]


def find_labs() -> frozenset[str]:
    """Return the names of the labs of which anything is there."""
    return frozenset(space.lab for space in find_spaces())


def find_nodes(lab: str) -> list[str]:
    """Return the nodes of a lab that have a network namespace, whatever else is left of them."""
    nodes = [space.node for space in find_spaces() if space.lab == lab and space.node != SWITCH]
    return sorted(nodes, key=lambda node: (len(node), node))


def find_processes(lab: str | None = None) -> list[Process]:
    """Return the processes that live in namespaces of a lab, or of any lab."""
    inodes = dict(_inodes(space for space in find_spaces() if lab in (None, space.lab)))
    found = []
    for entry in os.listdir("/proc") if inodes else ():
        if entry.isdigit() and (space := inodes.get(_network_of(entry))):
            numbers = _pid_numbers(entry)
            # Two numbers, ours and the node's: in a node there may be namespaces again.
            is_init = len(numbers) == 2 and numbers[1] == "1"
            found.append(Process(int(entry), space, is_init, len(numbers) > 1))
    return found


def find_inits(lab: str) -> Mapping[str, int]:
    """Return the PID, here, of each node's first process."""
    return {each.space.node: each.pid for each in find_processes(lab) if each.is_init}


def is_in_space(pid: int, space: Space) -> bool:
    """Return whether a process lives in a namespace now: a PID may mean another one by now."""
    return bool(dict(_inodes([space])).get(_network_of(str(pid))))


def is_program_of(pid: int, space: Space) -> bool:
    """Return whether a process is now a node's own, and not its first: in its PIDs' namespace."""
    numbers = _pid_numbers(str(pid))
    return is_in_space(pid, space) and len(numbers) > 1 and numbers[1] != "1"


def find_cpu_groups(lab: str, node: str = "*") -> list[Path]:
    """Return the control groups that hold back the processes of a lab's nodes."""
    pattern = Space(lab, node).name
    return [path for folder in CPU_GROUP_FOLDERS for path in folder.glob(pattern) if path.is_dir()]


def has_machine_link(lab: str) -> bool:
    """Return whether this machine has an interface to the lab: by its mark, not by its name."""
    return marked_folder(lab, read_link_mark(lab) or "") is not None


def has_foreign_link(lab: str) -> bool:
    """Return whether a link that is not the lab's has the name of one that would be."""
    return read_link_mark(lab) is not None and not has_machine_link(lab)


def read_link_mark(lab: str) -> str | None:
    """Return the alias of what has the name of the lab's link, None where there is no such link."""
    link = LINKS / machine_link(lab)
    try:
        return (link / "ifalias").read_text(errors="replace").strip()
    except OSError:
        return "" if link.exists() else None


def words_of(pid: int) -> list[str]:
    """Return a process's command line, [] where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


@contextlib.contextmanager
def inside(space: Space) -> Iterator[None]:
    """Have this thread in a network namespace for a block; sockets that it opens stay there.

    Raises:
        OSError: there is no such namespace, or we may not enter it.
    """
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(space.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(here)
    finally:
        os.close(here)


def _enter(namespace: int) -> None:
    import ctypes  # os.setns is there from Python 3.12 on

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, 0x40000000):  # CLONE_NEWNET of linux/sched.h
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _inodes(spaces: Iterator[Space] | list[Space]) -> Iterator[tuple[int, Space]]:
    namespaces = os.stat("/proc/self/ns/net").st_dev
    for space in spaces:
        with contextlib.suppress(OSError):
            found = os.stat(space.path)
            if found.st_dev == namespaces:  # else a file that a crash left without its namespace
                yield found.st_ino, space


def _network_of(pid: str) -> int:
    try:
        return int(os.readlink(f"/proc/{pid}/ns/net").strip("net:[]"))
    except (OSError, ValueError):
        return 0  # it has just ended, or is a thread of the kernel


def _pid_numbers(pid: str) -> list[str]:
    """Return a process's number in each PID namespace that it is in, ours first."""
    try:
        status = Path("/proc", pid, "status").read_text()
    except OSError:
        return []
    return next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
