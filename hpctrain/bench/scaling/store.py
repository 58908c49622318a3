"""The folder of a measurement: made or gone on with, held by one process, never half-written."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpctrain.bench.scaling.cases import (
    ALLREDUCE_FILE,
    PLAN_FILE,
    SAMPLES_FILE,
    BenchPlan,
    StoredSample,
    read_plan,
    read_samples,
)
from hpctrain.bench.scaling.trials import CONFIG_FILE
from hpctrain.config import Config, dump_toml
from hpctrain.errors import BenchError, PlanError, raise_all

LOCK_FILE = ".lock"
DROPPED_FILE = "dropped.jsonl"  # of --remeasure
# Measurements on other machines or with other libraries are not put together.
SAME = ("cpu", "cores", "python", "hpctrain", "mpi", "torch", "horovod")


class BenchFolder:
    """A measurement's folder, locked and open for more samples by this process."""

    def __init__(self, path: Path, plan: BenchPlan, samples: tuple[StoredSample, ...]) -> None:
        self.path = path
        self.plan = plan
        self.samples = list(samples)

    @property
    def went_on(self) -> bool:
        """Whether something had been measured before."""
        return bool(self.samples)

    def append(self, sample: StoredSample) -> None:
        """Add a finished trial; when this returns, no crash takes it away."""
        _append(self.path / SAMPLES_FILE, [sample])
        self.samples.append(sample)

    def drop(self, names: Sequence[str]) -> None:
        """Take trials out, so that they are measured again; what they were goes into DROPPED_FILE.

        Args:
            names: of runs (``weak-np2-1node-3``), or of cases, for all trials of each.

        Raises:
            PlanError: a name is neither.
        """
        known = {sample.case for sample in self.samples} | set(map(_run_name, self.samples))
        raise_all(
            PlanError,
            [
                f"--remeasure: no finished trial in {self.path}, got {name}; expected some of "
                f"{', '.join(sorted(known)) or 'none'}."
                for name in names
                if name not in known
            ],
        )
        dropped = [each for each in self.samples if {each.case, _run_name(each)} & set(names)]
        _append(self.path / DROPPED_FILE, dropped)
        self.samples = [each for each in self.samples if each not in dropped]
        text = b"".join(map(_line, self.samples)).decode()
        _write_whole(self.path / SAMPLES_FILE, text)

    def write_allreduces(self, placements: Mapping[str, Mapping[str, Any]]) -> None:
        """Write what all-reduces measured, by placement."""
        record = {"schema": 1, "placements": dict(placements)}
        _write_whole(self.path / ALLREDUCE_FILE, json.dumps(record) + "\n")


@contextlib.contextmanager
def open_bench(path: Path, plan: BenchPlan, config: Config) -> Iterator[BenchFolder]:
    """Make a measurement's folder, or go on with the one that is there.

    Args:
        plan: what is asked for now. One that is gone on with keeps its own environment.
        config: what all cases share, for the trials to read.

    Raises:
        PlanError: another measurement is in this folder, and in what it differs; or other files.
        BenchError: another process is measuring there, or its files cannot be understood.
    """
    if _holds_other_files(path):
        raise PlanError(
            f"--out: {path} holds other files, and no measurement; expected a new folder."
        )
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        if (path / PLAN_FILE).exists():
            before = with_more_repeats(read_plan(path), plan)
            raise_all(PlanError, describe_differences(path, before, plan))
            _write_whole(path / PLAN_FILE, _plan_text(before))
            plan = before
        else:
            _write_whole(path / CONFIG_FILE, dump_toml(config))
            _write_whole(path / PLAN_FILE, _plan_text(plan))
        _cut_half_line(path / SAMPLES_FILE)
        yield BenchFolder(path, plan, read_samples(path))


def with_more_repeats(before: BenchPlan, now: BenchPlan) -> BenchPlan:
    """Return the plan that is gone on with, with as many repeats as are asked for now; pure.

    Fewer than before would leave measured trials out, so they stay a difference.
    """
    if now.repeats <= before.repeats:
        return before
    options = {**before.asked["options"], "--repeats": now.repeats}
    return replace(before, repeats=now.repeats, asked={**before.asked, "options": options})


def describe_differences(path: Path, before: BenchPlan, now: BenchPlan) -> list[str]:
    """Return in what a measurement differs from the one that it is to go on with; pure."""
    found = list(_differing(before, now))
    # What the cases are made of says it better than they do.
    telling = [each for each in found if each[0] != "cases"] or found
    return [
        f"--out: {path} holds a measurement with another {name}, got {_short(new)}; expected "
        f"{_short(old)}. Ask for the same, or choose another --out."
        for name, old, new in telling
    ]


def commit_warning(before: BenchPlan, now: BenchPlan) -> str | None:
    """Return a warning where the code has changed since the measurement began; pure."""
    old, new = before.environment.get("commit"), now.environment.get("commit")
    if old == new:
        return None
    return f"the measurement began at commit {old} and goes on at {new}: see that they are as fast"


def _differing(before: BenchPlan, now: BenchPlan) -> Iterator[tuple[str, Any, Any]]:
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = (
        (before.asked["options"], now.asked["options"]),
        (_flat(before.asked["config"]), _flat(now.asked["config"])),
        ({key: before.environment.get(key) for key in SAME},
         {key: now.environment.get(key) for key in SAME}),
    )  # fmt: skip
    for old, new in pairs:
        for name in {**old, **new}:
            if old.get(name) != new.get(name):
                yield name, old.get(name), new.get(name)


def _flat(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{section}.{key}": v for section, table in tables.items() for key, v in table.items()}


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value or "none"
    return text if len(text) <= 120 else f"{text[:117]}..."


def _holds_other_files(path: Path) -> bool:
    if not path.exists() or (path / PLAN_FILE).exists():
        return False
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
    return not names <= {LOCK_FILE, CONFIG_FILE, *map(_draft_name, (CONFIG_FILE, PLAN_FILE))}


def _plan_text(plan: BenchPlan) -> str:
    return json.dumps(plan.as_json(), indent=1) + "\n"


def _draft_name(name: str) -> str:
    return f".{name}.tmp"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path / LOCK_FILE, "a", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(
                f"{path}: another hpctrain is measuring there; expected nobody. Wait for it, or "
                "choose another --out."
            ) from None
        except OSError:
            pass  # some network file systems have no locks
        yield


def _cut_half_line(path: Path) -> None:
    """Remove what a crash left of a line, so that the next one stands alone."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)


def _run_name(sample: StoredSample) -> str:
    return Path(sample.run).name


def _line(sample: StoredSample) -> bytes:
    return json.dumps(sample.as_json(), separators=(",", ":")).encode() + b"\n"


def _append(path: Path, samples: Sequence[StoredSample]) -> None:
    with open(path, "ab") as file:
        file.write(b"".join(map(_line, samples)))
        file.flush()
        os.fsync(file.fileno())


def _write_whole(path: Path, text: str) -> None:
    draft = path.with_name(_draft_name(path.name))
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
