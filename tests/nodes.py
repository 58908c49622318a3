"""Nodes for tests: hosts on one machine that share nothing but the file system.

Each has its own network, UTS, mount, PID and IPC namespace, its own address, sshd, host name,
boot_id, /dev/shm and /sys, so that MPI takes them for different machines. They hang on a bridge
in a namespace of its own: nothing of it is visible in the machine's own network.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import launching

SUBNET = "10.88.7"  # exists in these namespaces alone
SSH_PORT = 22
# Of its own in each node: PIDs repeat between nodes, and Open MPI names folders in TMPDIR by them.
TMPDIR = "/dev/shm/tmp"

_INIT = """\
#!/bin/bash
hostname {name}
mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o size=1g tmpfs /dev/shm
mkdir -m 1777 {tmp}
mount --bind {folder}/hosts /etc/hosts
mount --bind {folder}/{name}/boot_id /proc/sys/kernel/random/boot_id
cd {folder}/{name}
/usr/sbin/sshd -D -e -f ../sshd_config -p {port} -o SetEnv=TMPDIR={tmp} 2>>sshd.log &
echo $! > {folder}/{name}/sshd.pid
touch {folder}/{name}/ready
while :; do wait || :; sleep 0.2; done
"""

_SSHD_CONFIG = """\
HostKey {folder}/hostkey
AuthorizedKeysFile {folder}/id.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PasswordAuthentication no
UseDNS no
PidFile none
MaxStartups 100
"""

_SSH_CONFIG = """\
Host n*
  IdentityFile {folder}/id
  IdentitiesOnly yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
"""


@dataclass
class Node:
    """A node: `init` is the PID, outside, of its first process."""

    name: str
    address: str
    init: int
    keeper: subprocess.Popen
    port: int


class Nodes:
    """n0, where mpirun runs, and n1 … nN with two slots each."""

    def __init__(self, folder: Path, count: int, ports: dict[str, int] | None = None) -> None:
        self.folder = folder
        self.prefix = f"hpt{uuid.uuid4().hex[:6]}"
        self.nodes: dict[str, Node] = {}
        self.ports = ports or {}
        names = [f"n{index}" for index in range(count + 1)]
        try:
            self._make_files(names)
            self._make_switch()
            for index, name in enumerate(names):
                self._make_node(name, f"{SUBNET}.{10 + index}")
        except BaseException:
            self.close()
            raise

    @property
    def hostfile(self) -> Path:
        return self.folder / "hostfile"

    def inside(self, name: str) -> list[str]:
        """Return the words that start a command in a node, in this working directory."""
        kinds = ["--net", "--uts", "--mount", "--pid", "--ipc", f"--wdns={self.folder}"]
        enter = ["nsenter", "-t", str(self.nodes[name].init), *kinds]
        return [*enter, "--", "env", f"TMPDIR={TMPDIR}"]

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
        return int((self.folder / name / "sshd.pid").read_text())

    def power_off(self, name: str) -> None:
        """End everything in a node at once."""
        os.kill(self.nodes[name].init, 9)
        self.nodes[name].keeper.wait()

    def pull_cable(self, name: str) -> None:
        """Take a node's link down, at the switch."""
        _do("ip", "-n", f"{self.prefix}sw", "link", "set", f"to-{name}", "down")

    def close(self) -> None:
        """Leave nothing behind."""
        for node in self.nodes.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(node.init, 9)
            node.keeper.kill()
            node.keeper.wait()
        for name in ["sw", *self.nodes]:
            subprocess.run(
                ["ip", "netns", "del", f"{self.prefix}{name}"], capture_output=True, check=False
            )

    def _make_files(self, names: Sequence[str]) -> None:
        folder = self.folder
        for key in ("id", "hostkey"):
            _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
        lines = [f"{SUBNET}.{10 + index} {name}" for index, name in enumerate(names)]
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "\n".join(lines) + "\n")
        (folder / "sshd_config").write_text(_SSHD_CONFIG.format(folder=folder))
        # Beside the hostfile: hpctrain must find it there by itself.
        (folder / "ssh_config").write_text(_SSH_CONFIG.format(folder=folder))
        ports = {name: f" port={port}" for name, port in self.ports.items()}
        self.hostfile.write_text("".join(f"{n} slots=2{ports.get(n, '')}\n" for n in names[1:]))
        Path("/run/sshd").mkdir(exist_ok=True)

    def _make_switch(self) -> None:
        switch = f"{self.prefix}sw"
        _do("ip", "netns", "add", switch)
        _do("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        _do("ip", "-n", switch, "link", "set", "br0", "up")

    def _make_node(self, name: str, address: str) -> None:
        space, switch, folder = f"{self.prefix}{name}", f"{self.prefix}sw", self.folder / name
        folder.mkdir()
        _do("ip", "netns", "add", space)
        _do("ip", "link", "add", "eth0", "netns", space, "type", "veth",
            "peer", "name", f"to-{name}", "netns", switch)  # fmt: skip
        _do("ip", "-n", switch, "link", "set", f"to-{name}", "master", "br0", "up")
        _do("ip", "-n", space, "link", "set", "lo", "up")
        _do("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        _do("ip", "-n", space, "link", "set", "eth0", "up")
        (folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        port = self.ports.get(name, SSH_PORT)
        init = folder / "init"
        init.write_text(_INIT.format(name=name, folder=self.folder, port=port, tmp=TMPDIR))
        init.chmod(0o755)
        unshare = ["unshare", "--uts", "--mount", "--pid", "--ipc", "--fork", "--kill-child"]
        keeper = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{space}", *unshare, str(init)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self.nodes[name] = Node(name, address, keeper.pid, keeper, port)
        launching.wait_until((folder / "ready").exists, f"{name} to be up", 20)
        children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
        self.nodes[name].init = int(children[0])
        probe = ["ssh-keyscan", "-T", "2", "-p", str(port), "127.0.0.1"]
        launching.wait_until(
            lambda: (
                subprocess.run(
                    [*self.inside(name), *probe], capture_output=True, check=False
                ).stdout
            ),
            f"sshd of {name}",
        )


@contextlib.contextmanager
def nodes_up(folder: Path, count: int = 2, ports: dict[str, int] | None = None) -> Iterator[Nodes]:
    """Have nodes for the length of a block."""
    nodes = Nodes(folder, count, ports)
    try:
        yield nodes
    finally:
        nodes.close()


def _do(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
