"""Is B faster or slower than A? Case by case, judged against what the repeats differ by.

The two were measured apart, so repeats are no pairs: the ratio is the median of all ratios
between them, its interval that of the rank-sum test
(:func:`hpctrain.bench.report.spread.estimate_ratio`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hpctrain.bench.report.pairs import judge_ratio
from hpctrain.bench.report.result import Report, Size
from hpctrain.bench.report.spread import RatioInterval, estimate_ratio
from hpctrain.errors import BenchError, raise_all

SMALLEST_DIFFERENCE = 0.02
"""Machines that were never touched differ by as much from one day to the next."""
HARDWARE = {"cpu": "CPU", "cores": "cores"}
SOFTWARE = {
    "hpctrain": "hpctrain", "commit": "commit", "python": "Python", "mpi": "MPI",
    "torch": "torch", "horovod": "Horovod", "date": "date",
}  # fmt: skip
# Tables of the settings that must be the same, and what may differ in them.
ALIKE = ("model", "data", "train")
MAY_DIFFER = ("steps", "seed", "eval_every_steps", "eval_sequences", "log_every_steps")
OPTIONS = ("COMMAND", "--metric")
"""What is run, and what is read from it: another pattern is another rate."""
SAME_WORK = 0.01
"""Work a step may differ by this part: a COMMAND's is worked out from a rate that it rounds."""
TUNED = ("optim", "comm", "launch")


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseRatio:
    """One case in both measurements.

    Args:
        rate_a, rate_b: medians, in `unit`.
        ratio: of B over A; above 1 B is faster.
        verdict: ``faster``, ``slower``, ``no difference seen`` or ``too few repeats to tell``.
        is_below: the whole interval lies below the limit that was given.
    """

    key: str
    unit: str
    rate_a: float
    rate_b: float
    ratio: RatioInterval
    verdict: str
    is_below: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two measurements side by side.

    Args:
        only_a, only_b: cases that the other one lacks.
        differences: what makes them hard to compare; empty unless that was accepted.
        changed: what may differ: versions, commit, date, settings that tune.
        unfinished: cases with fewer repeats than were planned, of which measurement, and how many.
    """

    cases: tuple[CaseRatio, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    differences: tuple[str, ...]
    changed: tuple[str, ...]
    unfinished: tuple[str, ...]
    fail_below: float | None

    @property
    def failed(self) -> tuple[CaseRatio, ...]:
        return tuple(case for case in self.cases if case.is_below)

    @property
    def unjudged(self) -> tuple[str, ...]:
        """What no judgement rests on, in words: a build must not pass by what was not measured."""
        few = [f"{case.key}: too few repeats" for case in self.cases if case.ratio.low is None]
        missing = [f"{key}: not measured in B" for key in self.only_a]
        return (*few, *missing, *self.unfinished)

    @property
    def is_passed(self) -> bool:
        """Whether no limit was given, or every case of A was judged in B and none lies below."""
        return self.fail_below is None or not (self.failed or self.unjudged)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": 1,
            **asdict(self),
            "failed": [case.key for case in self.failed],
            "unjudged": list(self.unjudged),
            "passed": self.is_passed,
        }


def compare_reports(
    a: Report, b: Report, fail_below: float | None = None, *, anyway: bool = False
) -> Comparison:
    """Return B against A, for every case that both have.

    Args:
        fail_below: a case whose ratio is certainly lower counts as failed.
        anyway: compare also what was measured on other hardware or with other settings.

    Raises:
        BenchError: they have no case in common, or differ in what must be the same.
    """
    differences = tuple(find_differences(a, b))
    if not anyway:
        raise_all(
            BenchError,
            [
                f"compare: not alike, got {difference}; expected the same in both. Measure again, "
                "or compare them --anyway."
                for difference in differences
            ],
        )
    keys_a, keys_b = ([size.key for size in report.sizes] for report in (a, b))
    shared = [key for key in keys_a if key in keys_b]
    if not shared:
        raise BenchError(
            f"compare: no case in common, got {', '.join(keys_a)} and {', '.join(keys_b)}; "
            "expected at least one that both have."
        )
    return Comparison(
        cases=tuple(_compare(a.size(key), b.size(key), fail_below) for key in shared),
        only_a=tuple(key for key in keys_a if key not in keys_b),
        only_b=tuple(key for key in keys_b if key not in keys_a),
        differences=differences,
        changed=tuple(find_changes(a, b)),
        unfinished=(*_find_unfinished("A", a), *_find_unfinished("B", b)),
        fail_below=fail_below,
    )


def _find_unfinished(name: str, report: Report) -> Iterator[str]:
    for size in report.sizes:
        if len(size.repeats) < report.planned_repeats:
            yield f"{size.key}: {len(size.repeats)} of {report.planned_repeats} repeats in {name}"


def find_differences(a: Report, b: Report) -> Iterator[str]:
    """Yield what must be the same and is not: hardware, settings, model and unit."""
    yield from _changes(HARDWARE, a.environment, b.environment)
    yield from _changes({"hosts": "hosts"}, _hosts(a), _hosts(b))
    tables_a, tables_b = (report.asked.get("config") or {} for report in (a, b))
    for table in ALIKE:
        yield from _setting_changes(table, tables_a, tables_b)
    yield from _changes({name: name for name in OPTIONS}, _options(a), _options(b))
    for key in [size.key for size in a.sizes]:
        both = [next((s for s in report.sizes if s.key == key), None) for report in (a, b)]
        if all(both):
            yield from _size_changes(*both)


def _compare(a: Size, b: Size, fail_below: float | None) -> CaseRatio:
    interval = estimate_ratio(b.rate.values, a.rate.values)
    is_below = fail_below is not None and interval.high is not None and interval.high < fail_below
    return CaseRatio(
        key=a.key, unit=a.unit, rate_a=a.rate.median, rate_b=b.rate.median, ratio=interval,
        verdict=judge_ratio(interval, SMALLEST_DIFFERENCE), is_below=is_below,
    )  # fmt: skip


def _hosts(report: Report) -> dict[str, Any]:
    """Return what the hosts are, without their names: another node of one kind is the same."""
    hosts = report.environment.get("hosts") or ()
    kinds = [
        {name: value for name, value in host.items() if name != "name"}
        if isinstance(host, Mapping)
        else "host"
        for host in hosts
    ]
    return {"hosts": kinds}


def _options(report: Report) -> Mapping[str, Any]:
    return report.asked.get("options") or {}


def find_changes(a: Report, b: Report) -> Iterator[str]:
    """Yield what may differ, for it is what one compares: versions, and settings that tune."""
    yield from _changes(SOFTWARE, a.environment, b.environment)
    tables_a, tables_b = (report.asked.get("config") or {} for report in (a, b))
    for table in TUNED:
        yield from _setting_changes(table, tables_a, tables_b)


def _setting_changes(
    table: str, tables_a: Mapping[str, Any], tables_b: Mapping[str, Any]
) -> Iterator[str]:
    a, b = tables_a.get(table) or {}, tables_b.get(table) or {}
    keys = sorted({*a, *b} - {*MAY_DIFFER})
    yield from _changes({key: f"{table}.{key}" for key in keys}, a, b)


def _size_changes(a: Size, b: Size) -> Iterator[str]:
    for name in ("unit", "device_name", "params", "work_per_step"):
        one, other = getattr(a, name), getattr(b, name)
        is_near = name == "work_per_step" and one and other and abs(other / one - 1) <= SAME_WORK
        if one != other and not is_near:
            yield f"{a.key}: {name.replace('_', ' ')} {one} and {other}"


def _changes(names: Mapping[str, str], a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    for name, title in names.items():
        if a.get(name) != b.get(name):
            yield f"{title} {a.get(name)} and {b.get(name)}"
