"""From nodes that have booted to nodes that ranks can start on: keys, hpctrain, Horovod, a check.

Everything here can be done again. Keys travel over ssh alone, never through user data or state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpctrain.clusters.cloud.access import NodeAccess, make_key
from hpctrain.clusters.cluster_dir import ClusterNode
from hpctrain.clusters.provider import Console
from hpctrain.errors import ClusterError, raise_all
from hpctrain.executor import Completed, LocalExecutor, run_on_all

VENV = "/opt/hpctrain/venv"
PYTHON = f"{VENV}/bin/python"
PACKAGE = Path(__file__).resolve().parents[2]
NODE_KEY = "node_key"
RSYNC_TIMEOUT_S = 300.0
BUILD_TIMEOUT_S = 2400.0
_PUT = 'umask 077; mkdir -p ~/.ssh; cat > ~/.ssh/"$1"'
_ALLOW = 'grep -qxF "$1" ~/.ssh/authorized_keys || echo "$1" >> ~/.ssh/authorized_keys'
# As they are now: a run may have installed something since the first boot.
_VERSIONS = (
    """"$1" -c 'import platform; print("python", platform.python_version())' && """
    '"$1" -m pip list --format freeze --disable-pip-version-check'
)
_COMMAND = f'#!/bin/sh\nexec {PYTHON} -m hpctrain "$@"\n'


@dataclass(frozen=True)
class NodeSetup:
    """One cluster's nodes, and how they are reached."""

    access: NodeAccess
    nodes: Sequence[ClusterNode]
    console: Console

    def exchange_keys(self, folder: Path) -> None:
        """Let the nodes log in to each other, with a key that is used for nothing else.

        Raises:
            ClusterError: a node did not take it.
        """
        key = folder / NODE_KEY
        public = make_key(key, "hpctrain nodes", LocalExecutor())
        host_keys = self._on_all("read its host key", lambda node: self.access.run(
            node.name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub"))  # fmt: skip
        known = known_hosts(self.nodes, {name: done.stdout for name, done in host_keys.items()})
        for file, text in (("id_ed25519", key.read_text()), ("known_hosts", known)):
            self._on_all(f"take {file}", lambda node, file=file, text=text: self.access.run(
                node.name, "sh", "-c", _PUT, "sh", file, stdin=text))  # fmt: skip
        self._on_all("allow the nodes' key", lambda node: self.access.run(
            node.name, "sh", "-c", _ALLOW, "sh", public))  # fmt: skip

    def install(self) -> None:
        """Bring this hpctrain to the nodes and build Horovod there.

        Raises:
            ClusterError: with the last words of each node that failed.
        """
        where = self._on_all("name its packages' folder", lambda node: self.access.run(
            node.name, PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
        ))  # fmt: skip
        # -L: hpctrain/terraform and others are links in a checkout.
        self._on_all("take hpctrain", lambda node: self.access.rsync(
            f"{PACKAGE}/", f"{node.name}:{where[node.name].stdout.strip()}/hpctrain/",
            "-L", "--delete", "--exclude=__pycache__", timeout_s=RSYNC_TIMEOUT_S,
        ))  # fmt: skip
        self._on_all("take the command", lambda node: self.access.run(
            node.name, "sh", "-c", 'cat > "$1" && chmod 755 "$1"', "sh", f"{VENV}/bin/hpctrain",
            stdin=_COMMAND))  # fmt: skip
        self.console.say("  building Horovod on every node: a few minutes the first time")
        self._on_all("build Horovod", lambda node: self.access.run(
            node.name, PYTHON, "-m", "hpctrain", "install-horovod", timeout_s=BUILD_TIMEOUT_S
        ))  # fmt: skip

    def check(self) -> None:
        """Check what a launch will need: equal versions, GPUs, the way from the head to each.

        Raises:
            ClusterError: with everything that is wrong.
        """
        versions = self._on_all("say its versions", lambda node: self.access.run(
            node.name, "sh", "-c", _VERSIONS, "sh", PYTHON))  # fmt: skip
        errors = different_versions({name: done.stdout for name, done in versions.items()})
        for node in self.nodes:
            done = self.access.run(node.name, "nvidia-smi", "-L")
            count = len(done.stdout.splitlines()) if done.ok else 0
            if count != node.slots:
                why = "" if done.ok else f" ({done.last_words})"
                errors.append(f"{node.name}: GPUs, got {count}{why}; expected {node.slots}.")
        head = self.nodes[0].name
        for node in self.nodes[1:]:
            done = self.access.run(
                head, "ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", node.address, "true"
            )
            if not done.ok:
                errors.append(f"{head} cannot log in to {node.name}: {done.last_words}.")
        raise_all(ClusterError, errors)

    def _on_all(self, what: str, work: Callable[[ClusterNode], Completed]) -> dict[str, Completed]:
        done = run_on_all(work, list(self.nodes))
        found = {node.name: each for node, each in zip(self.nodes, done, strict=True)}
        raise_all(ClusterError, [
            f"{name}: cannot {what}: {each.last_words}."
            for name, each in found.items() if not each.ok
        ])  # fmt: skip
        return found


def known_hosts(nodes: Sequence[ClusterNode], keys: Mapping[str, str]) -> str:
    """Return the nodes' known_hosts, from host keys read over connections already trusted.

    >>> known_hosts([ClusterNode("a-0", "10.0.0.1", 1)], {"a-0": "ssh-ed25519 AAAA root@x"})
    '10.0.0.1,a-0 ssh-ed25519 AAAA\\n'
    """
    lines = []
    for node in nodes:
        kind, key = keys[node.name].split()[:2]
        lines.append(f"{node.address},{node.name} {kind} {key}\n")
    return "".join(lines)


def different_versions(versions: Mapping[str, str]) -> list[str]:
    """Return what differs between nodes, one line for each program or package.

    >>> different_versions({"n0": "python 3.10.12\\ntorch==2.13.0", "n1": "python 3.10.12"})
    ['versions of torch differ: 2.13.0 on n0, none on n1; expected one. Make the cluster anew.']
    """
    tables = {
        node: dict(line.replace("==", " ", 1).split(" ", 1) for line in text.splitlines() if line)
        for node, text in versions.items()
    }
    names = sorted(set().union(*tables.values())) if tables else []
    found = []
    for name in names:
        by_version: dict[str, list[str]] = {}
        for node, table in tables.items():
            by_version.setdefault(table.get(name, "none"), []).append(node)
        if len(by_version) > 1:
            words = ", ".join(f"{each} on {' '.join(on)}" for each, on in by_version.items())
            found.append(f"versions of {name} differ: {words}; expected one. "
                         "Make the cluster anew.")  # fmt: skip
    return found
