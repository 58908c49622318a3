"""A lab whose nodes can be disturbed at an exact moment, and repaired."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterRecord
from hpctrain.clusters.lab.faults import apply_faults, parse_faults
from hpctrain.clusters.lab.find import find_inits, find_processes, words_of
from hpctrain.clusters.overview import read_cluster

from faulting.training import Place  # isort: skip


class Nodes:
    """The nodes n1, n2 … of a lab; faults come without the time that a command takes to start."""

    def __init__(self, place: Place, name: str, count: int) -> None:
        self.place, self.name, self.count = place, name, count
        self.up()

    def up(self) -> None:
        """Make them, or start again those that are off."""
        self.place.call("cluster", "up", "--provider", "lab", "--name", self.name,
                        "--nodes", str(self.count), "--set", "slots=1", "--yes")  # fmt: skip

    def down(self) -> None:
        self.place.call("cluster", "down", "--name", self.name, "--yes")

    def fault(self, node: str, word: str) -> None:
        """Disturb a node, now."""
        directory, record = self._read()
        with directory.locked():
            apply_faults(directory, record, node, parse_faults([word]), os.environ)

    def kill_sshd(self, node: str) -> None:
        """End every sshd of a node: the one that listens, and those of connections."""
        for process in find_processes(self.name):
            if process.space.node == node and any("sshd" in w for w in words_of(process.pid)[:1]):
                os.kill(process.pid, signal.SIGKILL)

    def repair(self, node: str) -> None:
        """Undo whatever was done to a node."""
        if node in find_inits(self.name):
            self.fault(node, "link-up")
        else:
            self.up()

    def restart(self, node: str) -> None:
        """Switch a node off and on."""
        self.fault(node, "poweroff")
        self.up()

    def _read(self) -> tuple[ClusterDirectory, ClusterRecord]:
        return read_cluster(self.name, {**os.environ, **self.place.env}, whole=True)


@contextmanager
def nodes_up(folder: Path, name: str, count: int = 2, **more: object) -> Iterator[Nodes]:
    """Have nodes, and a place to train on them, for the length of a block."""
    place = Place(
        folder, where=("--cluster", name), env={"XDG_STATE_HOME": str(folder / "state")}, **more,
    )  # fmt: skip
    place.prepare()
    nodes = Nodes(place, name, count)
    try:
        yield nodes
    finally:
        nodes.down()
