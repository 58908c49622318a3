"""What an all-reduce measurement found, as a value; bandwidths as nccl-tests defines them.

Source: NVIDIA/nccl-tests, doc/PERFORMANCE.md: ``algbw = S/t`` and, for an all-reduce over n
ranks, ``busbw = algbw · 2(n − 1)/n``; GB are 1e9 bytes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hpctrain.errors import BenchError, raise_all

if TYPE_CHECKING:
    from hpctrain.scaling_model.links import LinkFit

SCHEMA = 1
FIT_POINTS = 3  # two unknowns and one to disagree


@dataclass(frozen=True, kw_only=True, slots=True)
class AllreducePoint:
    """One backend at one message size.

    Args:
        bytes_: of the message, on each rank.
        repeats_s: each repeat's time of one all-reduce (s): a batch of `iterations`, one after
            the other, on the slowest rank, divided by their number.
        wrong: elements that were not the sum, over all ranks and repeats.
        checked: elements that were looked at: every one of every timed all-reduce.
        n: ranks.
        device: where the message lay, ``cpu`` or ``cuda``.
    """

    backend: str
    bytes_: int
    repeats_s: tuple[float, ...]
    wrong: int
    n: int
    iterations: int = 1
    checked: int = 0
    device: str = "cpu"

    @property
    def median_s(self) -> float:
        return statistics.median(self.repeats_s)

    @property
    def p99_s(self) -> float:
        """By nearest rank: under 100 repeats it is the slowest."""
        return sorted(self.repeats_s)[math.ceil(0.99 * len(self.repeats_s)) - 1]

    @property
    def algbw_gb_per_s(self) -> float:
        return algbw_gb_per_s(self.bytes_, self.median_s)

    @property
    def busbw_gb_per_s(self) -> float:
        return busbw_gb_per_s(self.bytes_, self.median_s, self.n)


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """What was not measured, and why; a whole backend where `bytes_` is None."""

    backend: str
    bytes_: int | None
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AllreduceResult:
    """All points of one launch.

    Args:
        n: ranks.
        nodes: machines.
        placement: in words, e.g. ``2 nodes with 2 ranks each``.
        environment: what it was measured on: date, CPU, versions.
    """

    n: int
    nodes: int
    placement: str
    points: tuple[AllreducePoint, ...]
    skipped: tuple[Skipped, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def backends(self) -> tuple[str, ...]:
        """Those that were measured."""
        return tuple(dict.fromkeys(point.backend for point in self.points))

    def curve(self, backend: str) -> tuple[tuple[int, float], ...]:
        """Return a backend's (bytes, median s), by size."""
        mine = [p for p in self.points if p.backend == backend]
        return tuple((p.bytes_, p.median_s) for p in sorted(mine, key=lambda p: p.bytes_))

    def as_json(self) -> dict[str, Any]:
        """Return all of it, and for readers the bandwidths beside the times, and the fits."""
        record = asdict(self) | {"schema": SCHEMA, "environment": dict(self.environment)}
        for written, point in zip(record["points"], self.points, strict=True):
            written["bytes"] = written.pop("bytes_")
            written |= {name: getattr(point, name) for name in _DERIVED}
        for written in record["skipped"]:
            written["bytes"] = written.pop("bytes_")
        record["fits"] = {backend: fit_as_json(fit) for backend, fit in fit_links(self).items()}
        return record


_DERIVED = ("median_s", "p99_s", "algbw_gb_per_s", "busbw_gb_per_s")


def result_from_json(record: Mapping[str, Any]) -> AllreduceResult:
    """Return the value that :meth:`AllreduceResult.as_json` wrote.

    Raises:
        BenchError: it is of another schema, or something is missing in it.
    """
    if record.get("schema") != SCHEMA:
        raise BenchError(
            f"all-reduce result: cannot be read, got schema {record.get('schema')!r}; expected "
            f"{SCHEMA}. Measure again: hpctrain bench allreduce"
        )
    try:
        return AllreduceResult(
            n=record["n"],
            nodes=record["nodes"],
            placement=record["placement"],
            points=tuple(point_from_json(each) for each in record["points"]),
            skipped=tuple(
                Skipped(backend=each["backend"], bytes_=each["bytes"], reason=each["reason"])
                for each in record["skipped"]
            ),
            environment=dict(record["environment"]),
        )
    except (KeyError, TypeError) as problem:
        raise BenchError(
            f"all-reduce result: damaged, got no {problem}; expected what "
            "'hpctrain bench allreduce --out FILE' writes. Measure again."
        ) from problem


def point_from_json(record: Mapping[str, Any]) -> AllreducePoint:
    """Return one point; what can be worked out from it is left aside."""
    names = ("backend", "wrong", "n", "iterations", "checked", "device")
    return AllreducePoint(
        bytes_=record["bytes"],
        repeats_s=tuple(record["repeats_s"]),
        **{name: record[name] for name in names},
    )


def algbw_gb_per_s(bytes_: int, time_s: float) -> float:
    """Return S/t (GB/s).

    >>> round(algbw_gb_per_s(1073741824, 10776e-6), 2)
    99.64
    """
    return bytes_ / time_s / 1e9


def busbw_gb_per_s(bytes_: int, time_s: float, n: int) -> float:
    """Return S/t · 2(n − 1)/n (GB/s): what each rank's link carries each way, at best.

    >>> round(busbw_gb_per_s(1073741824, 10776e-6, 16), 2)
    186.83
    """
    return algbw_gb_per_s(bytes_, time_s) * 2 * (n - 1) / n


def check_result(result: AllreduceResult) -> AllreduceResult:
    """Return the result if something was measured and every element was right.

    Raises:
        BenchError: naming each backend and size with wrong elements.
    """
    if not result.points:
        reasons = "; ".join(dict.fromkeys(f"{s.backend}: {s.reason}" for s in result.skipped))
        raise BenchError(
            f"all-reduce: nothing was measured, got {reasons}; expected one backend and size "
            "at least. Install a backend, or choose smaller --sizes or a longer --budget."
        )
    raise_all(
        BenchError,
        [
            f"{point.backend}: wrong sums at {point.bytes_} bytes, got {point.wrong} wrong of "
            f"{point.checked} elements; expected none. Its times mean nothing: check memory, "
            "network and versions of the library."
            for point in result.points
            if point.wrong
        ],
    )
    return result


def fit_links(result: AllreduceResult) -> dict[str, LinkFit]:
    """Return for each backend the link (latency, bandwidth) that its times fit best.

    With one rank nothing is exchanged, and of less than three sizes no residual is left. Where
    several ranks of a host and several hosts take part, it is the link that all of it amounts to.
    """
    if result.n < 2:
        return {}
    from hpctrain.scaling_model.links import fit_allreduce

    fits = {}
    for backend in result.backends:
        curve = result.curve(backend)
        if len(curve) >= FIT_POINTS:
            algorithm = find_algorithm(result, backend)
            fits[backend] = fit_allreduce(curve, result.n, algorithm, name=backend)
    return fits


def fit_as_json(fit: LinkFit) -> dict[str, Any]:
    """Return a fit for readers: latencies (s), bandwidth one way (bytes/s), and each residual.

    A residual is (fit - measured) / measured; ``error`` is their root mean square.
    """
    residuals = [
        {"bytes": bytes_, "measured_s": seconds, "residual": residual}
        for (bytes_, seconds), residual in zip(fit.points, fit.residuals, strict=True)
    ]
    return {
        "latency_s": fit.link.latency_s,
        "handshake_s": fit.link.handshake_s,
        "bandwidth_bytes_per_s": fit.link.bandwidth_bytes_per_s,
        "error": fit.link.error,
        "source": fit.link.source,
        "residuals": residuals,
    }


def find_algorithm(result: AllreduceResult, backend: str) -> str:
    """Return by which algorithm a backend sums, as :mod:`hpctrain.scaling_model` names it.

    Open MPI chooses by size; gloo and NCCL use rings for what is large.
    """
    device = next(point.device for point in result.points if point.backend == backend)
    is_mpi = device == "cpu" and backend != "torch"
    return "openmpi" if is_mpi and "Open MPI" in result.environment.get("mpi", "") else "ring"
