"""Remove a lab, or a node of one: what is found in the kernel by its name, whoever made it."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpctrain.clusters.cluster_dir import ClusterDirectory
from hpctrain.clusters.lab.facts import search_path
from hpctrain.clusters.lab.find import (
    Process,
    find_cpu_groups,
    find_processes,
    find_spaces,
    has_machine_link,
    is_in_space,
    words_of,
)
from hpctrain.clusters.lab.names import SWITCH, Space, machine_link, switch_port
from hpctrain.errors import ClusterError
from hpctrain.executor import Command, LocalExecutor

KILL_TIMEOUT_S = 10.0


def remove_lab(lab: str, environ: Mapping[str, str]) -> None:
    """End all processes of a lab and remove its network; its directory stays.

    Raises:
        ClusterError: something is left; the message names it.
    """
    path = search_path(environ)
    deadline_s = time.monotonic() + KILL_TIMEOUT_S
    while (processes := find_processes(lab)) and time.monotonic() < deadline_s:
        kill_and_wait(processes)
    for group in find_cpu_groups(lab):
        remove_group(group)
    # Deleted first and by hand: with their namespace, links go some time later.
    if has_machine_link(lab):
        _try(path, "ip", "link", "del", machine_link(lab))
    for space in find_spaces():
        if space.lab == lab:
            _try(path, "ip", "netns", "del", space.name)
    if left := find_leftovers(lab):
        raise ClusterError(*(f"{lab}: could not be removed: {each}." for each in left))


def remove_node(lab: str, node: str, directory: ClusterDirectory, *, keep_disk: bool) -> None:
    """End a node and remove its network; its files too, but for the disk that `keep_disk` keeps."""
    path, port = search_path(os.environ), switch_port(node)
    mine = [
        each
        for each in find_processes(lab)
        if each.space.node == node or (each.space.node == SWITCH and port in words_of(each.pid))
    ]
    kill_and_wait(mine)
    for group in find_cpu_groups(lab, node):
        remove_group(group)
    _try(path, "ip", "-n", Space(lab, SWITCH).name, "link", "del", port)
    _try(path, "ip", "netns", "del", Space(lab, node).name)
    if not keep_disk:
        shutil.rmtree(directory.path / "nodes" / node, ignore_errors=True)


def find_leftovers(lab: str) -> list[str]:
    """Return in words what is there of a lab."""
    found = [f"process {each.pid} in {each.space.name}" for each in find_processes(lab)]
    found += [f"network namespace {space.name}" for space in find_spaces() if space.lab == lab]
    found += [f"link {machine_link(lab)}"] if has_machine_link(lab) else []
    found += [f"control group {path}" for path in find_cpu_groups(lab)]
    return found


def kill_and_wait(processes: Sequence[Process]) -> None:
    """Kill processes, each only while it still lives where it was found, and wait for their end.

    The first process of a PID namespace comes first: the kernel ends the others with it.
    """
    opened = []
    for process in sorted(processes, key=lambda each: not each.is_init):
        with contextlib.suppress(OSError):  # it is gone already
            descriptor = os.pidfd_open(process.pid)
            opened.append(descriptor)
            # The descriptor cannot come to mean another process; the PID could, until now.
            if is_in_space(process.pid, process.space):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    deadline_s = time.monotonic() + KILL_TIMEOUT_S
    for descriptor in opened:
        select.select([descriptor], [], [], max(0.0, deadline_s - time.monotonic()))
        os.close(descriptor)


def remove_group(group: Path) -> None:
    """Remove a control group; its last process may be a moment from its end."""
    for _ in range(50):
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)


def _try(path: str, *argv: str) -> None:
    LocalExecutor().run(Command(argv, {"PATH": path}), timeout_s=10)
