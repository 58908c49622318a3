"""Run hpctrain as a user does: as a process, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 120.0

# Every rank says who it is by a sum that only comes out right if all of them take part.
MPI_PROGRAM = """
import os, socket
from mpi4py import MPI
comm = MPI.COMM_WORLD
total = comm.allreduce(comm.rank + 1)
print(f"rank {comm.rank} of {comm.size} sum {total} local {os.environ['LOCAL_RANK']} "
      f"on {socket.gethostname()}", flush=True)
"""

# Waits to be ended, with a helper process that must not outlive it.
WAITING_PROGRAM = """
import subprocess, sys, time
subprocess.Popen(["sleep", sys.argv[1]])
print("waiting", flush=True)
time.sleep(600)
"""


@dataclass(frozen=True)
class Done:
    """A finished ``hpctrain run``."""

    returncode: int
    stdout: str
    stderr: str
    path: Path

    @property
    def events(self) -> list[dict]:
        return [json.loads(line) for line in (self.path / "events.jsonl").read_text().splitlines()]

    def event(self, name: str) -> dict:
        return [event for event in self.events if event["event"] == name][-1]

    def rank_events(self, rank: int) -> list[dict]:
        text = (self.path / "ranks" / f"rank-{rank:05d}.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def log(self, rank: int) -> bytes:
        return (self.path / "logs" / f"rank-{rank:05d}.log").read_bytes()


def start(
    folder: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    name: str = "r",
) -> subprocess.Popen:
    """Start ``hpctrain run --name NAME ARGUMENTS`` in a folder."""
    argv = [*prefix, sys.executable, "-m", "hpctrain", "run", "--name", name, *arguments]
    return subprocess.Popen(
        argv,
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def finish(process: subprocess.Popen, folder: Path, name: str = "r") -> Done:
    """Wait for a started run."""
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        raise AssertionError(f"still running after {TIMEOUT_S} s:\n{out}\n{err}") from None
    return Done(process.returncode, out, err, folder / "runs" / name)


def run(folder: Path, *arguments: str, **more) -> Done:
    """Run ``hpctrain run`` to its end."""
    name = more.get("name", "r")
    return finish(start(folder, *arguments, **more), folder, name)


def wait_until(test: Callable[[], object], what: str, timeout_s: float = 60.0) -> None:
    """Wait for something to become true."""
    deadline_s = time.monotonic() + timeout_s
    while not test():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def wait_for_output(folder: Path, ranks: Sequence[int], name: str = "r") -> None:
    """Wait until these ranks have printed something."""
    logs = [folder / "runs" / name / "logs" / f"rank-{rank:05d}.log" for rank in ranks]
    wait_until(lambda: all(log.exists() and log.stat().st_size for log in logs), "ranks' output")


def processes_with(word: str) -> list[int]:
    """Return the processes on this machine, namespaces included, that have a word in their
    command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in words and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found
