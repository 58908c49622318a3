"""Leave a node a share of this machine's cores: by a control group, or by a stand-in for one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from hpctrain.clusters.lab.find import (
    CPU_GROUP_FOLDERS,
    find_cpu_groups,
    find_processes,
    is_program_of,
    words_of,
)
from hpctrain.clusters.lab.names import SWITCH, Space
from hpctrain.clusters.lab.remove import kill_and_wait, remove_group
from hpctrain.executor import Command, LocalExecutor

PERIOD_US = 50_000  # short, so that a rank is slow all the time, not stopped and then fast
DUTY_CYCLE_MODULE = "hpctrain.clusters.lab.duty_cycle"


def limit_cpu(lab: str, node: str, share: float, path: str) -> str:
    """Hold a node's processes back, those to come included; return by what, in words.

    Args:
        share: of this machine's cores, 0 to 1.
        path: where programs are looked for.
    """
    for folder in CPU_GROUP_FOLDERS:
        group = folder / Space(lab, node).name
        try:
            _make_group(group, share)
        except OSError:
            remove_group(group)
            continue
        _fill(group, lab, node)
        return f"by the control group {group}"
    _start_duty_cycle(lab, node, share, path)
    return (
        "by stopping its processes for a part of every 0.1 s, a stand-in: this machine offers no "
        "control group for CPU time"
    )


def free_cpu(lab: str, node: str) -> None:
    """Undo :func:`limit_cpu`."""
    cycles = [
        each
        for each in find_processes(lab)
        if each.space.node == SWITCH
        and (words := words_of(each.pid))
        and DUTY_CYCLE_MODULE in words
        and node in words
    ]
    if cycles:
        kill_and_wait(cycles)
    continue_node(lab, node)  # whoever stopped it: one that was killed could not undo it
    for group in find_cpu_groups(lab, node):
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (group.parent / "cgroup.procs").write_text(pid)
        remove_group(group)


def stop_node(lab: str, node: str, stopped: list[int]) -> None:
    """Stop a node's programs: not its first process, which holds it together, and not its sshd,
    which ends a session whose process stops. They go to `stopped`, for :func:`continue_stopped`."""
    for process, pid in _programs_of(lab, node):
        if _is_sshd(pid):
            os.close(process)
            continue
        stopped.append(process)
        with contextlib.suppress(OSError):  # it has ended
            signal.pidfd_send_signal(process, signal.SIGSTOP)


def continue_stopped(stopped: Iterable[int]) -> None:
    """Continue what :func:`stop_node` stopped, wherever it has gone meanwhile."""
    for process in stopped:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(process, signal.SIGCONT)
        os.close(process)


def continue_node(lab: str, node: str) -> None:
    """Continue all of a node's programs, whoever has stopped them."""
    continue_stopped(process for process, _ in _programs_of(lab, node))


def _programs_of(lab: str, node: str) -> Iterator[tuple[int, int]]:
    """Yield a descriptor, to be closed, and the PID of each of a node's programs.

    The descriptor cannot come to mean another process; a PID could, from the search to here.
    """
    for each in find_processes(lab):
        if each.space.node == node and each.is_within and not each.is_init:
            try:
                process = os.pidfd_open(each.pid)
            except OSError:
                continue  # it has ended
            if is_program_of(each.pid, each.space):
                yield process, each.pid
            else:
                os.close(process)


def _is_sshd(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("sshd")
    except OSError:
        return True  # it has ended


def _make_group(group: Path, share: float) -> None:
    """Make a control group, of version 1 or 2; raise OSError where there is none for CPU time."""
    quota_us = max(1000, int(share * (os.cpu_count() or 1) * PERIOD_US))
    is_version_2 = (group.parent / "cgroup.controllers").exists()
    if is_version_2:
        (group.parent / "cgroup.subtree_control").write_text("+cpu")
    elif not (group.parent / "cpu.shares").exists():
        raise FileNotFoundError(group)
    group.mkdir(exist_ok=True)
    if is_version_2:
        (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    else:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota_us))


def _fill(group: Path, lab: str, node: str) -> None:
    """Put all of a node's processes in; again, for those that were started meanwhile."""
    for _ in range(3):
        for each in find_processes(lab):
            if each.space.node == node and each.is_within:
                with contextlib.suppress(OSError):
                    (group / "cgroup.procs").write_text(str(each.pid))


def _start_duty_cycle(lab: str, node: str, share: float, path: str) -> None:
    words = (
        "nsenter", f"--net={Space(lab, SWITCH).path}",
        sys.executable, "-m", DUTY_CYCLE_MODULE, lab, node, f"{share:.6f}",
    )  # fmt: skip
    LocalExecutor().start(
        Command(words, {"PATH": path}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path("/"),
        only_env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
