"""Trainings to be disturbed: started as a user starts them, looked at from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE_S = 120.0
HERE = Path(__file__).parent
SETTINGS = {
    "model.factory": "paced_model:build",
    "model.seq_len": 32,
    "data.path": "data",
    "train.global_batch_size": 8,
    "train.eval_every_steps": 0,
    "train.eval_sequences": 4,
    "train.device": "cpu",
    "optim.lr": 1e-2,
    "optim.warmup_steps": 5,
    "checkpoint.every_steps": 10,
    "launch.threads_per_rank": 1,
    "launch.cut_off_s": 10,
    "launch.grace_s": 3,
}
ALERTS_OF_AN_END = {"silent", "stopped", "hang", "left early"}


class StillRunning(Exception):
    """A run has not ended in time."""


@dataclass(frozen=True)
class Place:
    """A folder with data and model, where trainings of one length run.

    Args:
        where: words for ``hpctrain run`` that say on which hosts, such as ``--cluster NAME``.
        env: variables for every hpctrain there.
    """

    folder: Path
    steps: int = 100
    pace_s: float = 0.05
    np: int = 2
    where: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def prepare(self) -> None:
        """Make what the trainings read."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "orders").mkdir(exist_ok=True)
        (self.folder / "pace").write_text(str(self.pace_s))
        shutil.copy(HERE / "paced_model.py", self.folder)
        text = self.folder / "text.txt"
        text.write_text("All work and no play makes a small model a dull model. " * 400)
        self.call("data", "prepare", "--source", str(text), "--tokenizer", "bytes",
                  "--validation-fraction", "0.1", "--out", "data")  # fmt: skip

    def call(self, *words: str) -> str:
        """Run an hpctrain command here to its end; return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "hpctrain", *words], cwd=self.folder, capture_output=True,
            env={**os.environ, **self.env}, text=True, timeout=PATIENCE_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"hpctrain {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(
        self, name: str, *, resume: bool = False, words: Sequence[str] = (),
        np: int | None = None, **settings: object,
    ) -> Training:  # fmt: skip
        """Start a training, or go on with one."""
        chosen = {**SETTINGS, "train.steps": self.steps, **settings}
        given = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
        argv = [sys.executable, "-m", "hpctrain", "run", "--name", name, *self.where,
                "--np", str(np or self.np), *words, *given]  # fmt: skip
        started_s = time.time()
        with open(self.folder / f"{name}.{'again' if resume else 'first'}.txt", "wb") as said:
            process = subprocess.Popen(
                [*argv, "--resume"] if resume else argv, cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=said, stderr=subprocess.STDOUT, env={**os.environ, **self.env},
            )  # fmt: skip
        return Training(self, name, process, started_s, Path(said.name))

    def run_path(self, name: str) -> Path:
        return self.folder / "runs" / name

    def order(self, word: str, rank: int) -> None:
        """Have a rank of the running training misbehave."""
        (self.folder / "orders" / f"{word}-{rank}").touch()


@dataclass
class Training:
    """One attempt of a run, while it runs and afterwards."""

    place: Place
    name: str
    process: subprocess.Popen[bytes]
    started_s: float
    output: Path

    @property
    def path(self) -> Path:
        return self.place.run_path(self.name)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def whole_checkpoints(self) -> list[Path]:
        return list(self.checkpoints.glob("step-*"))

    def has_ranks(self) -> bool:
        """Return whether a rank of this attempt, or of one after it, has begun."""
        return any(event["event"] == "rank_started" for event in self.rank_events())

    def said(self) -> str:
        """Return what the launcher has printed."""
        return self.output.read_text(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        """Return the events of this attempt and of those after it."""
        return [e for e in read_lines(self.path / "events.jsonl") if e["time_s"] >= self.started_s]

    def rank_events(self) -> list[dict[str, Any]]:
        files = sorted(self.path.glob("ranks/*.jsonl"))
        events = (
            {**event, "rank": int(file.stem.removeprefix("rank-"))}
            for file in files for event in read_lines(file)
        )  # fmt: skip
        return [event for event in events if event["time_s"] >= self.started_s]

    def last_step(self) -> int:
        return max((e["step"] for e in self.events() if e["event"] == "step"), default=0)

    def wait_for_step(self, step: int) -> None:
        self.wait_until(lambda: self.last_step() >= step, f"step {step}")

    def wait_until(self, test: Callable[[], object], what: str) -> None:
        """Wait for something of a training that is to run on meanwhile."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not test():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise StillRunning(f"{self.name}: not seen: {what}\n{self.said()}")
            time.sleep(0.02)

    def finish(self, patience_s: float = PATIENCE_S) -> int:
        """Return the launcher's exit code."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            said = self.said()
            self.end()
            raise StillRunning(f"{self.name}: runs after {patience_s:g} s\n{said}") from None

    def end(self) -> None:
        """Leave nothing running."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def processes(self) -> dict[int, str]:
        """Return what carries this run's name, on any host that is a part of this machine."""
        mark = f"HPCTRAIN_ATTEMPT={self.name}.".encode()
        return {
            pid: words for pid, words in find_processes(mark)
            if pid != os.getpid() and pid != self.process.pid
        }  # fmt: skip

    def program(self, rank: int) -> int:
        """Return the PID, here, of a rank's program."""
        mark = f"HPCTRAIN_RANK={rank}".encode()
        own = self.processes()
        for pid, words in find_processes(mark, whole=True):
            if pid in own and "hpctrain.train" in words and "hpctrain.launch.shim" not in words:
                return pid
        raise LookupError(f"{self.name}: rank {rank} has no program")

    def first_sign_s(self, since_s: float) -> float | None:
        """Return when the launcher first knew (wall clock), of what happened at `since_s`."""
        signs = [
            event["time_s"]
            for event in (*self.events(), *self.rank_events())
            if event["time_s"] >= since_s
            and (
                (event["event"] == "alert" and event.get("kind") in ALERTS_OF_AN_END)
                or (event["event"] == "rank_exit" and event["exit_code"] != 0)
                or event["event"] == "run_finished"
            )
        ]
        return min(signs, default=None)

    def outcome(self) -> dict[str, Any]:
        """Return the newest ``run_finished``; {} where there is none."""
        return next((e for e in reversed(self.events()) if e["event"] == "run_finished"), {})

    def losses(self) -> dict[int, float]:
        """Return the loss of each step of the whole run, of a repeated one the latest."""
        events = read_lines(self.path / "events.jsonl")
        return {e["step"]: e["loss"] for e in events if e["event"] == "step"}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what is whole in a file of JSON lines."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def find_processes(mark: bytes, *, whole: bool = False) -> Iterator[tuple[int, str]]:
    """Yield each process with a variable that begins with (or is) `mark`, and its words."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(v == mark if whole else v.startswith(mark) for v in variables):
            yield int(entry.name), words.strip()


def find_half_checkpoints(folder: Path) -> list[str]:
    """Return what is wrong with checkpoints that have a complete one's name."""
    from hpctrain.errors import CheckpointError
    from hpctrain.train.checkpoint_folder import find_damage, list_steps, read_index, step_name

    wrong: list[str] = []
    for step in list_steps(folder):
        path = folder / step_name(step)
        try:
            wrong += find_damage(path, read_index(path))
        except CheckpointError as problem:
            wrong += problem.messages
    return wrong
