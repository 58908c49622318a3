"""Nodes for tests: a lab whose nodes are called n0, n1 …, with mpirun on one of them, n0.

The lab itself is hpctrain's own (hpctrain/clusters/lab); here are the names that tests like, and
ways to look into nodes and to disturb them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import launching

from hpctrain.clusters.cluster_dir import ClusterDirectory
from hpctrain.clusters.lab.build import LabBuilder
from hpctrain.clusters.lab.facts import gather_lab_facts, search_path
from hpctrain.clusters.lab.files import NODE_TMPDIR, SSHD_CONFIG
from hpctrain.clusters.lab.find import find_inits
from hpctrain.clusters.lab.names import SWITCH, Space, switch_port
from hpctrain.clusters.lab.owner import choosing_addresses
from hpctrain.clusters.lab.plan import LabPlan, plan_lab
from hpctrain.clusters.lab.remove import remove_lab
from hpctrain.clusters.provider import ClusterRequest
from hpctrain.executor import LocalExecutor


class Nodes:
    """n0, where mpirun runs, and n1 … nN with two slots each."""

    def __init__(self, folder: Path, count: int, ports: dict[str, int] | None = None) -> None:
        self.folder = folder
        self.lab = f"t-{uuid.uuid4().hex[:6]}"
        self.directory = ClusterDirectory(self.lab, folder / "state")
        self.directory.path.mkdir(parents=True)
        self.path = search_path(os.environ)
        try:
            with choosing_addresses():
                builder = LabBuilder(self._plan(count), self.directory)
                builder.make_switch()
            builder.make_files()
            builder.start_nodes()
            self.inits = dict(find_inits(self.lab))
            for name, port in (ports or {}).items():
                self._move_sshd(name, port)
            self._write_hostfile(count, ports or {})
        except BaseException:
            self.close()
            raise

    @property
    def hostfile(self) -> Path:
        return self.folder / "hostfile"

    def inside(self, name: str) -> list[str]:
        """Return the words that start a command in a node, in this working directory."""
        kinds = ["--net", "--uts", "--mount", "--pid", "--ipc", f"--wdns={self.folder}"]
        enter = ["nsenter", "-t", str(self.inits[name]), *kinds]
        return [*enter, "--", "env", f"TMPDIR={NODE_TMPDIR}"]

    def run(self, *arguments: str, **more) -> launching.Done:
        """Run ``hpctrain run`` on n0."""
        return launching.run(self.folder, *arguments, prefix=self.inside("n0"), **more)

    def start(self, *arguments: str, **more) -> subprocess.Popen:
        """Start ``hpctrain run`` on n0."""
        return launching.start(self.folder, *arguments, prefix=self.inside("n0"), **more)

    def check_output(self, name: str, *argv: str) -> str:
        """Run a command in a node."""
        return subprocess.run(
            [*self.inside(name), *argv], check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def received_bytes(self, name: str) -> int:
        """Return how much a node has received over its cable."""
        return int(self.check_output(name, "cat", "/sys/class/net/eth0/statistics/rx_bytes"))

    def sshd(self, name: str) -> int:
        """Return the PID, inside the node, of its sshd."""
        return int(self.check_output(name, "pgrep", "-o", "-x", "sshd"))

    def power_off(self, name: str) -> None:
        """End everything in a node at once; the kernel still closes its connections."""
        os.kill(self.inits[name], signal.SIGKILL)
        launching.wait_until(lambda: name not in find_inits(self.lab), f"{name} to be off")

    def pull_cable(self, name: str) -> None:
        """Take a node's link down, at the switch."""
        switch = Space(self.lab, SWITCH).name
        argv = ["ip", "-n", switch, "link", "set", switch_port(name), "down"]
        subprocess.run(argv, check=True, env={"PATH": self.path}, timeout=30)

    def close(self) -> None:
        """Leave nothing behind."""
        remove_lab(self.lab, os.environ)

    def _plan(self, count: int) -> LabPlan:
        facts = gather_lab_facts(self.directory, os.environ, LocalExecutor())
        plan = plan_lab(ClusterRequest(self.lab, "lab", count + 1), facts).detail
        nodes = tuple(
            replace(node, name=f"n{number}", host_name=f"n{number}")
            for number, node in enumerate(plan.nodes)
        )
        return replace(plan, nodes=nodes, to_start=tuple(node.name for node in nodes))

    def _move_sshd(self, name: str, port: int) -> None:
        old = self.sshd(name)
        key = self.directory.path / "nodes" / name / "hostkey"
        sshd = shutil.which("sshd", path=self.path)
        config = self.directory.path / SSHD_CONFIG
        start = f"{sshd} -f {config} -o HostKey={key} -p {port} && kill {old}"
        self.check_output(name, "sh", "-c", start)

    def _write_hostfile(self, count: int, ports: dict[str, int]) -> None:
        lines = [
            f"n{number} slots=2" + (f" port={ports[name]}" if name in ports else "")
            for number in range(1, count + 1)
            if (name := f"n{number}")
        ]
        self.hostfile.write_text("\n".join(lines) + "\n")
        # Beside the hostfile: hpctrain must find it there by itself.
        shutil.copy(self.directory.ssh_config, self.folder / "ssh_config")


@contextlib.contextmanager
def nodes_up(folder: Path, count: int = 2, ports: dict[str, int] | None = None) -> Iterator[Nodes]:
    """Have nodes for the length of a block."""
    nodes = Nodes(folder, count, ports)
    try:
        yield nodes
    finally:
        nodes.close()
