"""The report as a value: everything that its files show, and ``report.json`` as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hpctrain.bench.report.forecast import Forecast
from hpctrain.bench.report.measured import Repeat
from hpctrain.bench.report.pairs import Pair
from hpctrain.bench.report.spread import Spread
from hpctrain.bench.report.stragglers import Straggler

SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """One case: a mode, a precision, a number of ranks and their placement.

    Args:
        baseline: the case that speed-up and efficiency are relative to; its own key where it is
            the baseline itself.
        rate: in `unit`, over all ranks.
        speedup: rate over the baseline's, times the baseline's ranks; `np` is ideal.
        efficiency: 0 to 1; of the medians.
        efficiency_rounds: the same round by round.
        device_name: of the GPUs; None on CPUs.
        params: parameters of the model; None where unknown.
        work_per_step: what `unit` counts, in one step of all ranks; None without steps.
        wire_bytes: that each rank sends a step; None where unknown.
        usd_per_million_tokens: None where no price is known.
        parts_s: of the typical step; None where the ranks report none.
        lost_points: percent points of efficiency that each part took; they add up to the loss.
        inconclusive: why nothing can be concluded from this size.
        superlinear: what to think of strong scaling over n.
    """

    key: str
    mode: str
    np: int
    nodes: int
    precision: str | None
    baseline: str
    unit: str
    rate: Spread
    speedup: float
    efficiency: float
    efficiency_rounds: Spread
    mfu: float | None
    device_name: str | None
    params: int | None
    work_per_step: float | None
    wire_bytes: int | None
    usd_per_million_tokens: float | None
    step_s: float | None
    parts_s: Mapping[str, float] | None
    lost_points: Mapping[str, float] | None
    inconclusive: str | None
    superlinear: str | None
    notes: tuple[str, ...]
    stragglers: tuple[Straggler, ...]
    forecast: Forecast
    repeats: tuple[Repeat, ...]

    @property
    def is_baseline(self) -> bool:
        return self.key == self.baseline

    @property
    def rate_per_rank(self) -> float:
        return self.rate.median / self.np


@dataclass(frozen=True, kw_only=True, slots=True)
class BusPoint:
    """One all-reduce: message size and bandwidth as nccl-tests defines it."""

    placement: str
    backend: str
    bytes_: int
    median_s: float
    busbw_gb_per_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkRow:
    """The link that a placement's all-reduces amount to: fitted, with what the fit leaves.

    Args:
        latency_s, handshake_s: of a message; the second of large ones besides.
        bandwidth_gb_per_s: one way; None where latency is all that the sizes show.
        error: root mean square of the residuals.
        residuals: (bytes, (fit - measured) / measured), by size.
        source: to what it was fitted.
    """

    placement: str
    backend: str
    latency_s: float
    handshake_s: float
    bandwidth_gb_per_s: float | None
    error: float
    residuals: tuple[tuple[int, float], ...]
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a bench directory says.

    Args:
        conditions: (name, value) of the environment and of what was asked.
        findings: paragraphs of plain words.
        warnings: what to keep in mind reading it.
    """

    title: str
    conditions: tuple[tuple[str, str], ...]
    environment: Mapping[str, Any]
    asked: Mapping[str, Any]
    warmup_steps: int
    timed_steps: int | None
    planned_repeats: int
    price: Mapping[str, Any] | None
    sizes: tuple[Size, ...]
    precisions: tuple[Pair, ...]
    placements: tuple[Pair, ...]
    bus: tuple[BusPoint, ...]
    links: tuple[LinkRow, ...]
    findings: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())

    def size(self, key: str) -> Size:
        """Return a case by its key."""
        return next(size for size in self.sizes if size.key == key)

    def as_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}
