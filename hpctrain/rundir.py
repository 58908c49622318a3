"""The run directory: the contract between launcher, trainer, monitor, bench and report.

::

    runs/<name>/
      run.toml                the resolved configuration, every value
      plan.json               argv, environment, reasons, hosts, versions, git commit
      events.jsonl            rank 0's events and the launcher's
      ranks/rank-00007.jsonl  that rank's own: start, steps, exit
      logs/rank-00007.log     that rank's output, whole
      logs/mpirun.log         what mpirun itself said
      stacks/rank-00007.txt   where that rank was when the run hung
      STOP, SAVE              put there by hand: end the run, or save and end it
      checkpoints/            what a training can go on from, see docs/checkpoints.md

The launcher is the only writer, but for the checkpoints. A run that was tried again holds
several attempts, numbered by its ``attempt`` events.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hpctrain.append_files import EVENTS_FILE, AppendFiles
from hpctrain.errors import RunDirectoryError, did_you_mean
from hpctrain.events import encode_event

LOCK_FILE = ".lock"
ORDER_FILES = {"STOP": signal.SIGTERM, "SAVE": signal.SIGUSR1}
# What a dry run's script makes when it is run by hand, under the name that it was planned for.
DRY_RUN_FILES = frozenset({"hostfile", "ssh_config"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


class RunDirectory:
    """A run's folder, locked and open for writing by this process."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        self._lock = lock
        self.warn: Callable[[str], None] = lambda text: None
        """Told what a person should know: that the disk is full."""
        self._files = AppendFiles(path, lambda text: self.warn(text))
        self._orders_left: set[str] = set()
        self._mark_logs()
        self.attempt = 0
        """The number of the attempt that is under way."""

    @classmethod
    def create(cls, path: Path, *, resume: bool = False) -> RunDirectory:
        """Make a new run's folder, or open an existing one to try again.

        Raises:
            RunDirectoryError: the name is taken (without `resume`), unknown (with it), no
                name at all, or another launcher is running it.
        """
        check_name(path.name)
        known = (path / LOCK_FILE).exists()
        if resume and not known:
            raise RunDirectoryError(
                f"{path}: no such run; expected one to resume. See: hpctrain runs list"
            )
        if not resume and (known or _holds_more_than(path, DRY_RUN_FILES)):
            way_out = f"or remove it: hpctrain runs remove {path.name}" if known else ""
            raise RunDirectoryError(
                f"{path}: the name is taken; expected a new one. Choose another --name, go on "
                f"with it by --resume, {way_out}".rstrip(" ,")
                + "."
            )
        try:
            for folder in ("", "ranks", "logs"):
                (path / folder).mkdir(parents=True, exist_ok=True)
            # Made exclusively: of two launches with one name only one gets it.
            lock = open(path / LOCK_FILE, "a" if resume else "x", encoding="ascii")  # noqa: SIM115
        except FileExistsError as taken:
            raise RunDirectoryError(f"{path}: another launch has just taken the name.") from taken
        except OSError as problem:
            raise RunDirectoryError(f"{path}: cannot be written: {problem.strerror}.") from problem
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise RunDirectoryError(f"{path}: another hpctrain is running it just now.") from None
        except OSError:
            pass  # some network file systems have no locks: the name is still ours alone
        return cls(path, lock)

    def next_attempt(self) -> int:
        """Return the number that the next attempt gets, from 1."""
        return 1 + sum(1 for event in read_events(self.path) if event.get("event") == "attempt")

    def begin_attempt(self) -> int:
        """Return the next attempt's number, and count what is written from here on as its own."""
        # The events of earlier ones may still wait for room on a full disk.
        self.attempt = max(self.attempt + 1, self.next_attempt())
        self._mark_logs()
        return self.attempt

    def _mark_logs(self) -> None:
        """Remember where the logs of earlier attempts end."""
        logs = (self.path / "logs").glob("*.log")
        self._begun_at = {log.name: log.stat().st_size for log in logs}

    def write_text(self, name: str, text: str) -> None:
        """Write a whole file: complete or as it was.

        Raises:
            OSError: it cannot be written; never where it holds that text already, so that a run
                can be tried again on a full disk.
        """
        target = self.path / name
        with suppress(OSError, ValueError):
            if target.read_text(encoding="utf-8") == text:
                return
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(target)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise

    def event(self, event: str, **fields: Any) -> None:
        """Append an event of the launcher's own."""
        self._files.append(EVENTS_FILE, encode_event(event, **fields))

    def record(self, rank: int, record: dict[str, Any]) -> None:
        """Append what a rank reported: rank 0's to the run's events, ``rank_*`` to its own file."""
        own_file = rank != 0 or str(record.get("event", "")).startswith("rank_")
        name = f"ranks/rank-{rank:05d}.jsonl" if own_file else EVENTS_FILE
        self._files.append(name, json.dumps(record, separators=(",", ":")).encode() + b"\n")

    def log(self, rank: int, data: bytes) -> None:
        """Append to a rank's log."""
        self._files.append(f"logs/{log_name(rank)}", data)

    def log_launcher(self, data: bytes) -> None:
        """Append to the log of mpirun's own words."""
        self._files.append("logs/mpirun.log", data)

    def write_stacks(self, rank: int, text: str) -> None:
        """Keep where a rank was when its run hung; what an earlier attempt left goes."""
        try:
            (self.path / "stacks").mkdir(exist_ok=True)
            self.write_text(f"stacks/rank-{rank:05d}.txt", text.rstrip("\n") + "\n")
        except OSError as problem:
            self._files.note_full(problem)

    def take_orders(self) -> list[tuple[str, signal.Signals]]:
        """Return the order files that somebody has put there, and the signal that each stands for.

        They are taken away. One that cannot be (a folder, say) counts once, until it has gone.
        """
        return [(name, number) for name, number in ORDER_FILES.items() if self.take_order(name)]

    def take_order(self, name: str) -> bool:
        """Return whether somebody has put a file of that name there anew, and take it away."""
        path = self.path / name
        counted = name in self._orders_left
        try:
            path.unlink()
        except FileNotFoundError:
            self._orders_left.discard(name)
            return False
        except OSError:
            # A file server that is away answers so too, for a file that never was.
            if counted or not os.path.lexists(path):
                return False
            self._orders_left.add(name)
            return True
        self._orders_left.discard(name)
        return not counted

    def log_tail(self, rank: int, lines: int) -> list[str]:
        """Return the last lines of what this attempt wrote to a rank's log."""
        try:
            with open(self.path / "logs" / log_name(rank), "rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self._begun_at.get(log_name(rank), 0), end - 16384))
                text = file.read().decode(errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-lines:]

    def close(self) -> None:
        """Close all files and let others open the run."""
        try:
            self._files.close()
        finally:
            self._lock.close()


def _holds_more_than(path: Path, names: frozenset[str]) -> bool:
    """Return whether something other than these files is in a folder, or it is no folder."""
    try:
        return bool({entry.name for entry in path.iterdir()} - names)
    except OSError:
        return path.exists()


def check_name(name: str) -> None:
    """Refuse a run name that is unsafe in a path, a shell or a URL.

    Raises:
        RunDirectoryError: the name has other characters, or none.
    """
    if not _NAME.fullmatch(name):
        raise RunDirectoryError(
            f"--name: cannot be a run's name, got {name!r}; expected letters, digits, '.', '_', "
            "'+' and '-', beginning with a letter or digit, at most 128."
        )


def log_name(rank: int) -> str:
    """Return the name of a rank's log file."""
    return f"rank-{rank:05d}.log"


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a run's events; a line that is not whole yet is left out."""
    try:
        with open(path / EVENTS_FILE, "rb") as file:
            for line in file:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict):
                    yield event
    except FileNotFoundError:
        return


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run's files say of it; None is unknown."""

    name: str
    path: str
    state: str
    attempts: int
    command: str | None
    np: int | None
    hosts: tuple[str, ...]
    started_at_s: float | None
    duration_s: float | None
    exit_code: int | None
    failure: str | None
    step: int | None
    steps: int | None
    loss: float | None
    val_loss: float | None
    tokens_per_s: float | None


def summarize_run(path: Path) -> RunSummary:
    """Read what a run's files say of its latest attempt."""
    try:
        plan = json.loads((path / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        plan = {}
    attempts = 0
    latest: dict[str, Any] = {}
    finished: dict[str, Any] = {}
    for event in read_events(path):
        if event.get("event") == "attempt":
            attempts += 1
            latest, finished = {"started": event.get("time_s")}, {}
        elif event.get("event") == "run_finished":
            finished = event
        for key in ("step", "steps", "loss", "val_loss", "tokens_per_s", "time_s"):
            # A checkpoint is complete some steps after its own.
            if event.get(key) is not None and (key, event.get("event")) != ("step", "checkpoint"):
                latest[key] = event[key]
    state = finished.get("state") or ("running" if _is_locked(path) else "died")
    started, ended = latest.get("started"), latest.get("time_s")
    return RunSummary(
        name=path.name,
        path=str(path),
        state=state if attempts else "empty",
        attempts=attempts,
        command=plan.get("program"),
        np=plan.get("np"),
        hosts=tuple(placement["host"] for placement in plan.get("placement", ())),
        started_at_s=started,
        duration_s=round(ended - started, 3) if started and ended else None,
        exit_code=finished.get("exit_code"),
        failure=_describe_failure(finished.get("failure")),
        **{key: latest.get(key) for key in ("step", "steps", "loss", "val_loss", "tokens_per_s")},
    )


def _describe_failure(failure: Any) -> str | None:
    if not isinstance(failure, dict):
        return None
    if failure.get("rank") is None:
        return str(failure.get("reason"))
    return f"rank {failure.get('rank')} on {failure.get('host')}: {failure.get('reason')}"


def list_runs(runs_dir: Path) -> list[RunSummary]:
    """Return all runs in a folder, the oldest first."""
    if not runs_dir.is_dir():
        return []
    paths = [path for path in runs_dir.iterdir() if (path / LOCK_FILE).exists()]
    return sorted(
        (summarize_run(p) for p in paths), key=lambda run: (run.started_at_s or 0, run.name)
    )


def find_run(runs_dir: Path, name: str) -> Path:
    """Return a run's folder, which lies in `runs_dir` and nowhere else.

    Raises:
        RunDirectoryError: the name is none, or no run's.
    """
    if os.path.normpath(os.path.dirname(name) or runs_dir) == os.path.normpath(runs_dir):
        name = os.path.basename(name)  # as hpctrain prints it: runs/NAME
    check_name(name)
    if not (runs_dir / name / LOCK_FILE).exists():
        near = did_you_mean(name, [path.parent.name for path in runs_dir.glob(f"*/{LOCK_FILE}")])
        raise RunDirectoryError(f"{runs_dir / name}: no such run. See: hpctrain runs list.{near}")
    return runs_dir / name


def check_removable(path: Path) -> None:
    """Check that a folder is a run's and that nobody runs it.

    Raises:
        RunDirectoryError: it is running, or is no run's folder.
    """
    check_name(path.name)
    if not (path / LOCK_FILE).exists():
        raise RunDirectoryError(f"{path}: no such run. See: hpctrain runs list")
    if _is_locked(path) is not False:
        raise RunDirectoryError(
            f"{path}: it is running, or that cannot be told; expected a run that has ended."
        )


def remove_run(path: Path) -> None:
    """Remove a run's folder.

    Raises:
        RunDirectoryError: as :func:`check_removable`.
    """
    import shutil

    check_removable(path)
    shutil.rmtree(path)


def _is_locked(path: Path) -> bool | None:
    """Return whether a launcher holds the run; None where the file system cannot tell."""
    try:
        with open(path / LOCK_FILE, encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False
