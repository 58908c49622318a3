"""The cases of a scaling measurement, and what its folder holds, as values.

::

    FOLDER/
      bench.json       the plan: what was asked, the cases, what it is measured on
      samples.jsonl    one line a finished trial; a half line at its end is none
      allreduce.json   what hpctrain.bench.allreduce measured, by placement; need not be there
      runs/NAME        the trials' run directories
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpctrain.bench.samples import Sample, sample_from_json
from hpctrain.errors import BenchError

if TYPE_CHECKING:
    from hpctrain.bench.allreduce.results import AllreduceResult

SCHEMA = 1
PLAN_FILE, SAMPLES_FILE, ALLREDUCE_FILE = "bench.json", "samples.jsonl", "allreduce.json"

Mode = Literal["weak", "strong"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One size, placement and precision, measured as often as the plan repeats it.

    Args:
        key: names it: ``weak-fp32-np4-2nodes``; without a precision ``weak-np4-2nodes``.
        mode: weak keeps the batch of each rank, strong that of all ranks together.
        nodes: machines that the ranks are on.
        precision: the trainer's; None for a COMMAND, which alone knows its own.
        hosts: (name, slots) as the trial's hostfile has them; None for this machine.
        overrides: ``section.key=value`` on top of the plan's configuration.
    """

    key: str
    mode: Mode
    np: int
    nodes: int
    precision: str | None
    hosts: tuple[tuple[str, int], ...] | None
    overrides: tuple[str, ...]

    @property
    def placement(self) -> str:
        """How the ranks are placed, as all-reduce results are named: ``np4-2nodes``."""
        return name_placement(self.np, self.nodes)


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchPlan:
    """What is measured, and on what.

    Args:
        cases: in the order in which each repeat goes through them.
        warmup_steps: first steps of each trial that are not timed.
        timed_steps: steps of each trial that are; None for a COMMAND, which decides itself.
        asked: what was typed, and the configuration's tables, JSON-ready.
        environment: date, cpu, cores, versions, hosts …
        usd_per_hour: of all nodes together: value, what, as_of; None where nothing is paid.
    """

    cases: tuple[Case, ...]
    repeats: int
    warmup_steps: int
    timed_steps: int | None
    asked: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    usd_per_hour: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSample:
    """One finished trial.

    Args:
        case: its key.
        repeat: from 0.
        time_s: when it ended (Unix time).
        run: its run directory, relative to the bench's folder.
        wall_s: how long it took, its launch included.
        load_before: this machine's load average over the minute before it.
        sample: the steps; without any where COMMAND reports none and `metric` stands alone.
        metric: what ``--metric`` read from COMMAND's output, a rate; None without ``--metric``.
    """

    case: str
    repeat: int
    load_before: float
    sample: Sample
    metric: tuple[float, ...] | None = None
    time_s: float = 0.0
    run: str = ""
    wall_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def name_placement(np: int, nodes: int) -> str:
    """Return the name of a placement.

    >>> name_placement(4, 2), name_placement(1, 1)
    ('np4-2nodes', 'np1-1node')
    """
    return f"np{np}-{nodes}node{'s' if nodes != 1 else ''}"


def plan_from_json(record: Mapping[str, Any]) -> BenchPlan:
    """Return the plan that :meth:`BenchPlan.as_json` wrote.

    Raises:
        ValueError, KeyError, TypeError: it is not one of this schema.
    """
    if record["schema"] != SCHEMA:
        raise ValueError(f"schema {record['schema']}, expected {SCHEMA}")
    fields = {name: record[name] for name in BenchPlan.__dataclass_fields__}
    return BenchPlan(**{**fields, "cases": tuple(_case_from_json(c) for c in record["cases"])})


def _case_from_json(record: Mapping[str, Any]) -> Case:
    hosts = record["hosts"]
    return Case(**{
        **record,
        "hosts": None if hosts is None else tuple((name, slots) for name, slots in hosts),
        "overrides": tuple(record["overrides"]),
    })  # fmt: skip


def read_bench(
    folder: Path,
) -> tuple[BenchPlan, tuple[StoredSample, ...], Mapping[str, AllreduceResult]]:
    """Return a measurement's plan, its finished trials in their order, and its all-reduces.

    Returns:
        The all-reduces by :attr:`Case.placement`; empty where none were measured.

    Raises:
        BenchError: there is no measurement in this folder, or it cannot be understood.
    """
    return read_plan(folder), read_samples(folder), read_allreduces(folder)


def read_plan(folder: Path) -> BenchPlan:
    """Return the plan in a folder.

    Raises:
        BenchError: there is none, or it cannot be understood.
    """
    path = folder / PLAN_FILE
    try:
        return plan_from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BenchError(
            f"{folder}: no measurement, got no {PLAN_FILE}; expected a folder that "
            "`hpctrain bench` wrote."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BenchError(
            f"{path}: cannot be read: {problem}; expected schema {SCHEMA} of this hpctrain."
        ) from problem


def read_samples(folder: Path) -> tuple[StoredSample, ...]:
    """Return the finished trials in a folder; what a crash left of a line is left out.

    Raises:
        BenchError: a whole line cannot be understood.
    """
    path = folder / SAMPLES_FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return ()
    return tuple(_parse_samples(path, text[: text.rfind(b"\n") + 1]))


def _parse_samples(path: Path, text: bytes) -> Iterator[StoredSample]:
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            record = json.loads(line)
            metric = record["metric"]
            yield StoredSample(**{
                **record,
                "sample": sample_from_json(record["sample"]),
                "metric": None if metric is None else tuple(metric),
            })  # fmt: skip
        except (ValueError, KeyError, TypeError) as problem:
            raise BenchError(
                f"{path}:{number}: cannot be read: {problem!r}; expected what `hpctrain bench` "
                "wrote. Remove the line to measure this trial again."
            ) from problem


def read_allreduces(folder: Path) -> dict[str, AllreduceResult]:
    """Return the all-reduces in a folder by placement; empty where there are none.

    Raises:
        BenchError: the file cannot be understood.
    """
    path = folder / ALLREDUCE_FILE
    if not path.exists():
        return {}
    from hpctrain.bench.allreduce.results import result_from_json

    try:
        placements = json.loads(path.read_text(encoding="utf-8"))["placements"]
        return {name: result_from_json(record) for name, record in placements.items()}
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BenchError(
            f"{path}: cannot be read: {problem!r}; expected what `hpctrain bench` wrote. "
            "Remove it to measure the all-reduces again."
        ) from problem
