"""Carry out a lab's plan: files, switch, cables, nodes, until every node answers ssh."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from hpctrain.clusters.cluster_dir import ClusterDirectory
from hpctrain.clusters.lab import files
from hpctrain.clusters.lab.find import find_inits, find_processes, words_of
from hpctrain.clusters.lab.names import NODE_LINK, SWITCH, Space, switch_port
from hpctrain.clusters.lab.network import (
    Step,
    plan_pair,
    plan_plug,
    plan_shaping,
    plan_switch,
    plan_unplug,
)
from hpctrain.clusters.lab.plan import CABLE, LabNode, LabPlan
from hpctrain.clusters.lab.remove import kill_and_wait, remove_node
from hpctrain.errors import ClusterError
from hpctrain.executor import Command, LocalExecutor, run_on_all

STEP_TIMEOUT_S = 20.0
NODE_TIMEOUT_S = 20.0
CABLE_MODULE = "hpctrain.clusters.lab.cable"
SSH_PORT, SSH_GREETING_S = 22, 2.0


class LabBuilder:
    """The steps of one ``up``, in the order in which they are called."""

    def __init__(self, plan: LabPlan, directory: ClusterDirectory) -> None:
        self.plan = plan
        self.directory = directory
        self.executor = LocalExecutor()
        self.path = {"PATH": plan.search_path}

    def make_files(self) -> None:
        """Write what all nodes share."""
        plan, write = self.plan, self.directory.write_text
        (self.directory.path / "nodes").mkdir(mode=0o700, exist_ok=True)
        self._make_key(self.directory.path / files.KEY, f"hpctrain lab {plan.name}")
        host_keys = {}
        for node, key in zip(
            plan.nodes, run_on_all(self._make_node_files, plan.nodes), strict=True
        ):
            host_keys[node.host_name] = key
        ssh_config = files.render_lab_ssh_config(plan)
        # Changed in place: nodes have these mounted, and would not see new files of the name.
        for name, text in (
            (files.HOSTS, files.render_hosts(plan)),
            (files.KNOWN_HOSTS, files.render_known_hosts(host_keys)),
            (files.NODE_SSH_CONFIG, ssh_config),
        ):
            (self.directory.path / name).touch(mode=0o644)
            (self.directory.path / name).write_text(text)
        write(files.SSHD_CONFIG, files.render_sshd_config(plan))
        write(self.directory.ssh_config.name, ssh_config)
        write(self.directory.hostfile.name, files.render_lab_hostfile(plan), mode=0o644)

    def clear_files(self) -> None:
        """Remove what nodes of an earlier lab of this name have left, but for the disks we keep."""
        for folder in (self.directory.path / "nodes").glob("*"):
            if folder.name not in self.plan.keeps_disks:
                shutil.rmtree(folder, ignore_errors=True)

    def make_switch(self) -> None:
        """Make the switch."""
        self._take(plan_switch(self.plan, os.getpid()))

    def stop_nodes(self) -> None:
        """Take away nodes that go, and what is left of those that do not run."""
        for name in self.plan.to_stop:
            keep_disk = name in self.plan.to_start  # a disk outlives a power cut
            remove_node(self.plan.name, name, self.directory, keep_disk=keep_disk)

    def start_nodes(self) -> None:
        """Make the nodes that are missing, all at once, and wait until they answer."""
        nodes = [self.plan.node(name) for name in self.plan.to_start]
        for node in nodes:
            self._take([Step(("ip", "netns", "add", Space(self.plan.name, node.name).name))])
        run_on_all(self._start_node, nodes)

    def reshape_nodes(self) -> None:
        """Give nodes that run another link; their connections live on."""
        for name in self.plan.to_reshape:
            self._take(plan_unplug(self.plan.name, name))
            stop_cables(self.plan.name, name)
            self.connect(self.plan.node(name))

    def connect(self, node: LabNode) -> None:
        """Lay a node's cable, and shape it."""
        if self.plan.delay_by == CABLE and node.shape.delays_or_loses:
            self._start_cable(node)
        else:
            self._take(plan_pair(self.plan, node))
        self._take(plan_plug(self.plan, node))
        self._take(plan_shaping(self.plan.name, node.name, node.shape, self.plan.delay_by))

    # -- parts -----------------------------------------------------------------------------------

    def _make_node_files(self, node: LabNode) -> str:
        folder = Path(files.node_folder(self.plan, node.name))
        folder.mkdir(mode=0o700, exist_ok=True)
        self._make_key(folder / "hostkey", node.host_name)
        if not (folder / "boot_id").exists() or node.name in self.plan.to_start:
            (folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        if not (folder / "machine-id").exists():
            (folder / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (folder / "init").write_text(files.render_init(self.plan, node))
        return (folder / "hostkey.pub").read_text()

    def _make_key(self, path: Path, comment: str) -> None:
        if path.with_name(f"{path.name}.pub").exists():
            return
        path.unlink(missing_ok=True)  # half a pair, of an `up` that was killed
        words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))
        self._take([Step(words)])

    def _start_node(self, node: LabNode) -> None:
        self.connect(node)
        space = Space(self.plan.name, node.name)
        folder = Path(files.node_folder(self.plan, node.name))
        kinds = ("--uts", "--mount", "--pid", "--ipc", "--fork", "--kill-child")
        words = ("nsenter", f"--net={space.path}", "unshare", *kinds, "sh", str(folder / "init"))
        with open(folder / "log", "ab") as log:
            # A machine that has just been started knows nothing of this shell.
            self.executor.start(
                Command(words, self.path), stdout=log.fileno(), stderr=subprocess.STDOUT,
                cwd=Path("/"), only_env={"HOME": "/root", "LANG": "C.UTF-8"},
            )  # fmt: skip
        wait_until(
            lambda: answers_ssh(node.address),
            lambda: node.name in find_inits(self.plan.name),
            NODE_TIMEOUT_S,
            f"{node.host_name}: its sshd does not answer; look at {folder / 'log'}",
            folder / "log",
        )

    def _start_cable(self, node: LabNode) -> None:
        space, switch = Space(self.plan.name, node.name), Space(self.plan.name, SWITCH)
        words = (
            "nsenter", f"--net={switch.path}", sys.executable, "-m", CABLE_MODULE,
            space.name, NODE_LINK, switch.name, switch_port(node.name),
            f"{node.shape.latency_s or 0.0:.9f}", f"{node.shape.loss or 0.0:.9f}",
            f"{node.shape.bandwidth_bit_per_s or 0.0:.0f}",
        )  # fmt: skip
        log = Path(files.node_folder(self.plan, node.name)) / "cable.log"
        log.write_bytes(b"")
        with open(log, "ab") as output:
            self.executor.start(
                Command(words, self.path), stdout=output.fileno(), stderr=subprocess.STDOUT,
                cwd=Path("/"), only_env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip
        wait_until(
            lambda: "ready" in log.read_text(),
            lambda: "Traceback" not in log.read_text(),
            NODE_TIMEOUT_S,
            f"{node.host_name}: its cable does not start",
            log,
        )

    def _take(self, steps: Iterable[Step]) -> None:
        take_steps(self.executor, steps, self.plan.search_path)


def take_steps(executor: LocalExecutor, steps: Iterable[Step], search_path: str) -> None:
    """Run commands in order.

    Raises:
        ClusterError: one of them fails.
    """
    for step in steps:
        command = Command(step.argv, {"PATH": search_path})
        done = executor.run(command, timeout_s=STEP_TIMEOUT_S, stdin=step.stdin)
        if not done.ok and not step.may_fail:
            what = " ".join(step.argv) + (f" ({step.stdin.strip()})" if step.stdin else "")
            raise ClusterError(
                f"lab: this failed: {what}: {done.stderr.strip() or done.last_words}."
            )


def wait_until(
    test: Callable[[], bool],
    may_still: Callable[[], bool],
    limit_s: float,
    complaint: str,
    log: Path,
) -> None:
    """Wait for something to become true, no longer than it still may.

    Raises:
        ClusterError: it does not; with the last line of `log`.
    """
    begun_s = time.monotonic()
    while not test():
        waited_s = time.monotonic() - begun_s
        if waited_s > limit_s or (waited_s > 1 and not may_still()):
            lines = log.read_text(errors="replace").split("\n") if log.exists() else []
            words = [line for line in lines if line.strip()][-1:]
            raise ClusterError(f"{complaint}." + "".join(f" Its last line: {w}" for w in words))
        time.sleep(0.01)


def stop_cables(lab: str, node: str) -> None:
    """End the process that is a node's cable, if one is."""
    port = switch_port(node)
    cables = [
        each
        for each in find_processes(lab)
        if each.space.node == SWITCH and port in words_of(each.pid)
    ]
    kill_and_wait(cables)


def answers_ssh(address: str) -> bool:
    """Return whether an sshd greets there."""
    try:
        with socket.create_connection((address, SSH_PORT), timeout=SSH_GREETING_S) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
