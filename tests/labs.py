"""Labs for tests: made, disturbed and removed by the command line, as a user does."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import launching

TIMEOUT_S = 90.0


@dataclass
class Lab:
    """A lab under a name that no other has, with a state folder of its own."""

    folder: Path
    name: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:6]}")

    @property
    def env(self) -> dict[str, str]:
        return {"XDG_STATE_HOME": str(self.folder / "state")}

    @property
    def path(self) -> Path:
        """The cluster's own directory."""
        return self.folder / "state" / "hpctrain" / "clusters" / self.name

    @property
    def hostfile(self) -> Path:
        return self.folder / "hostfile"

    def host(self, node: str) -> str:
        return f"{self.name}-{node}"

    def address(self, node: str) -> str:
        record = json.loads((self.path / "cluster.json").read_text())
        return next(n["address"] for n in record["nodes"] if n["name"] == self.host(node))

    def start(self, verb: str, *arguments: str, **more) -> subprocess.Popen:
        """Start ``hpctrain cluster VERB --name NAME ARGUMENTS``."""
        argv = [sys.executable, "-m", "hpctrain", "cluster", verb, "--name", self.name, *arguments]
        return subprocess.Popen(
            argv, cwd=self.folder, env={**os.environ, **self.env}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
        )  # fmt: skip

    def try_cluster(self, verb: str, *arguments: str) -> subprocess.CompletedProcess:
        """Run it to its end, whatever that is."""
        process = self.start(verb, *arguments)
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def cluster(self, verb: str, *arguments: str) -> str:
        """Run it, and return what it printed."""
        done = self.try_cluster(verb, *arguments)
        assert done.returncode == 0, f"{verb}: {done.stdout}{done.stderr}"
        return done.stdout

    def status(self) -> dict:
        return json.loads(self.try_cluster("status", "--json").stdout)[0]

    def states(self) -> dict[str, str]:
        """Return the state of each node."""
        nodes = self.status()["nodes"]
        return {node["name"].removeprefix(f"{self.name}-"): node["state"] for node in nodes}

    def on(self, node: str, line: str) -> str:
        """Run a shell line on a node, over ssh, and return what it printed."""
        done = self.try_on(node, line)
        assert done.returncode == 0, f"{node}: {line}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def try_on(self, node: str, line: str) -> subprocess.CompletedProcess:
        """Run it, however it ends."""
        argv = ["ssh", "-F", str(self.path / "ssh_config"), node, line]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def inits(self) -> dict[str, int]:
        """Return the PID of each node's first process."""
        from hpctrain.clusters.lab.find import find_inits

        return dict(find_inits(self.name))

    def traces(self) -> list[str]:
        """Return what this machine shows of the lab, processes and mounts included."""
        found = [f"netns {n}" for n in os.listdir("/run/netns") if self.name in n]
        found += [f"link {n}" for n in os.listdir("/sys/class/net") if self.name in n]
        found += [f"mount {m}" for m in Path("/proc/mounts").read_text().splitlines()
                  if self.name in m]  # fmt: skip
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if self.name in words and str(os.getpid()) != process.name:
                    found.append(f"process {words}")
        found += [f"group {g}" for g in Path("/sys/fs/cgroup").glob(f"*/*{self.name}*")]
        found += [f"group {g}" for g in Path("/sys/fs/cgroup").glob(f"*{self.name}*")]
        found += [str(self.path)] if self.path.exists() else []
        found += ["the link to the hostfile"] if self.hostfile.is_symlink() else []
        return found

    def run(self, *arguments: str, **more) -> launching.Done:
        """Run ``hpctrain run`` from this machine's own shell, on the lab."""
        env = {**self.env, **more.pop("env", {})}
        return launching.run(self.folder, "--cluster", self.name, *arguments, env=env, **more)

    def start_run(self, *arguments: str, **more) -> subprocess.Popen:
        """Start it."""
        env = {**self.env, **more.pop("env", {})}
        return launching.start(self.folder, "--cluster", self.name, *arguments, env=env, **more)

    def received_bytes(self, node: str) -> int:
        """Return how much a node has received over its cable."""
        return int(self.on(node, "cat /sys/class/net/eth0/statistics/rx_bytes"))


@contextlib.contextmanager
def lab_up(folder: Path, *arguments: str) -> Iterator[Lab]:
    """Have a lab for the length of a block, and nothing of it afterwards."""
    lab = Lab(folder)
    try:
        lab.cluster("up", *arguments)
        yield lab
    finally:
        remove(lab)


def remove(lab: Lab) -> None:
    """Remove a lab, however much of it there is."""
    done = lab.try_cluster("down", "--yes")
    assert done.returncode in (0, 2), done.stderr  # 2: there is nothing of this name
    assert lab.traces() == []
