"""Commands and files on a cluster's nodes, over ssh and rsync; keys made here by ssh-keygen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpctrain.errors import ClusterError
from hpctrain.executor import Command, Completed, Executor, SshExecutor, render_command

COMMAND_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class NodeAccess:
    """How this machine reaches the nodes: by their names in the cluster's ssh configuration."""

    ssh_config: Path
    executor: Executor

    def run(
        self, node: str, *argv: str, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S
    ) -> Completed:
        """Run a command on a node; what it does is in the result, whatever it is."""
        there = SshExecutor(node, ("-F", str(self.ssh_config)), self.executor)
        return there.run(Command(argv), timeout_s=timeout_s, stdin=stdin)

    def rsync(
        self, source: str, target: str, *options: str, stdin: str = "", timeout_s: float
    ) -> Completed:
        """Copy files with rsync; a place on a node is ``node:path``."""
        shell = render_command(Command(("ssh", "-F", str(self.ssh_config), "-o", "BatchMode=yes")))
        command = Command(("rsync", "-a", *options, "-e", shell, "--", source, target))
        return self.executor.run(command, timeout_s=timeout_s, stdin=stdin)


def make_key(path: Path, comment: str, executor: Executor) -> str:
    """Make a key pair unless it is there; return its public half, one line.

    Raises:
        ClusterError: ssh-keygen is missing or fails.
    """
    public = path.with_name(f"{path.name}.pub")
    if not (path.exists() and public.exists()):
        words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))
        done = executor.run(Command(words), timeout_s=COMMAND_TIMEOUT_S)
        if not done.ok:
            raise ClusterError(
                f"ssh-keygen: cannot make {path}: {done.last_words}. It comes with openssh-client."
            )
    return public.read_text(encoding="utf-8").strip()


def forget_hosts(known_hosts: str, addresses: Sequence[str]) -> str:
    """Return known_hosts without the lines of some addresses: another machine has them now.

    >>> forget_hosts("10.0.0.1 ssh-ed25519 A\\n10.0.0.2 ssh-ed25519 B\\n", ["10.0.0.1"])
    '10.0.0.2 ssh-ed25519 B\\n'
    """
    gone = set(addresses)
    lines = known_hosts.splitlines(keepends=True)
    return "".join(line for line in lines if not gone & set(line.split(" ", 1)[0].split(",")))
