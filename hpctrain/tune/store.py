"""A tuning's work directory: what was asked, and every trial as it was measured.

::

    DIR/
      tune.json      what was asked, and of which machines
      base.toml      the configuration that is tuned
      trial.toml     the same, as trials get it
      trials.jsonl   one line a finished trial, raw values included
      result.json    what came of it
      runs/          the trials' run directories

A trial's line is written and synced when it ends, so Ctrl-C loses the trial that runs and no other.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpctrain.errors import BenchError
from hpctrain.tune.arms import Arm
from hpctrain.tune.search import Ask, Measured

SCHEMA = 2


class TuneStore:
    """The directory, open for one process alone."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            BenchError: another process tunes in it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file = open(folder / "trials.jsonl", "a+b", buffering=0)  # noqa: SIM115 (see close)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise BenchError(
                f"{folder}: another hpctrain tunes here just now; expected a directory of its "
                "own. Give another --dir."
            ) from None
        except OSError:
            pass  # some network file systems have no locks
        self._known = {_key(record): record for record in read_trials(folder)}
        self._end_half_a_line()

    @property
    def runs_dir(self) -> Path:
        return self.folder / "runs"

    @property
    def trials(self) -> int:
        """How many trials are there already."""
        return len(self._known)

    def find(self, ask: Ask) -> Measured | None:
        """Return what an earlier process measured for this question."""
        record = self._known.get((ask.arm, ask.round_number, ask.rung))
        return None if record is None else Measured(record["step_s"], record["wall_s"])

    def add(self, ask: Ask, measured: Measured, **more: Any) -> None:
        """Append a finished trial."""
        record = {
            "arm": [list(pair) for pair in ask.arm],
            "round": ask.round_number,
            "rung": ask.rung,
            "step_s": measured.step_s,
            "wall_s": measured.wall_s,
            **more,
        }
        self._known[_key(record)] = record
        self._file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        os.fsync(self._file.fileno())

    def write(self, name: str, text: str) -> None:
        """Write a whole file: complete or as it was."""
        write_whole(self.folder / name, text)

    def close(self) -> None:
        self._file.close()

    def _end_half_a_line(self) -> None:
        """A crash may have left one: the next record must not be glued to it."""
        size = self._file.seek(0, os.SEEK_END)
        if size and (self._file.seek(size - 1), self._file.read(1))[1] != b"\n":
            self._file.write(b"\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file that a crash leaves complete or as it was."""
    draft = path.with_name(f".{path.name}.tmp")
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_trials(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the trials of a work directory in the order of their ends; half a line is left out."""
    try:
        lines = (folder / "trials.jsonl").read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and {"arm", "round", "rung", "step_s", "wall_s"} <= set(record):
            yield record


def read_asked(folder: Path) -> dict[str, Any] | None:
    """Return what an earlier process was asked here; None in a new directory.

    Raises:
        BenchError: the file is damaged or of another version.
    """
    path = folder / "tune.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as problem:
        raise BenchError(f"{path}: not JSON: {problem}. Give another --dir.") from problem
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise BenchError(
            f"{path}: written by another version of hpctrain, got schema "
            f"{record.get('schema') if isinstance(record, dict) else None}; expected {SCHEMA}. "
            "Give another --dir."
        )
    return record


def _key(record: Mapping[str, Any]) -> tuple[Arm, int, str]:
    arm = tuple((str(knob), str(value)) for knob, value in record["arm"])
    return arm, record["round"], record["rung"]
