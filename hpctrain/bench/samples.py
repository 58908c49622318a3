"""What one trial measured, as a value; read from its run directory.

A step's time is rank 0's; its parts are each rank's own. What a rank waits for after backward
(`exposed_comm_s`) is the exchange itself and the wait for whoever comes last.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpctrain.errors import BenchError
from hpctrain.rundir import read_events

PARTS = ("data", "forward", "backward", "exposed_comm", "optimizer")


@dataclass(frozen=True, kw_only=True, slots=True)
class RankSteps:
    """One rank's timed steps, part by part (s), one value a step.

    Args:
        host: as the rank's own machine calls itself.
        peak_bytes: most memory of tensors on its GPU; None on a CPU.
    """

    rank: int
    host: str
    device: str
    data_s: tuple[float, ...]
    forward_s: tuple[float, ...]
    backward_s: tuple[float, ...]
    exposed_comm_s: tuple[float, ...]
    optimizer_s: tuple[float, ...]
    peak_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One trial's timed steps, those of the warm-up left out.

    Args:
        step_time_s: one value a step, as it was reported: 0 or NaN are for the gate to refuse.
        losses: global mean loss (nats a token), one a step, the warm-up's among them; None where
            a step told none, or one that is no finite number. Empty where no step told any.
        tokens_per_step: over all ranks; of a program that reports tokens/s their mean, no whole
            number as a rule.
        params: parameters of the model.
        flops_per_token: see :func:`hpctrain.train.flops.flops_per_token`; None where unknown.
        peak_flops: of one device (FLOP/s); None where unknown.
        device_name: of rank 0's GPU; None on a CPU.
        ranks: empty where the program reports no parts.
    """

    np: int
    step_time_s: tuple[float, ...]
    losses: tuple[float | None, ...]
    tokens_per_step: int | float | None
    precision: str | None
    params: int | None
    flops_per_token: float | None
    peak_flops: float | None
    device_name: str | None
    ranks: tuple[RankSteps, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def sample_from_json(record: Mapping[str, Any]) -> Sample:
    """Return the value that :meth:`Sample.as_json` wrote."""
    ranks = tuple(RankSteps(**_tuples(rank)) for rank in record["ranks"])
    return Sample(**{**_tuples(record), "ranks": ranks})


def read_sample(run_path: Path, warmup_steps: int) -> Sample:
    """Return what a finished run of the trainer, or of a program with its events, measured.

    Args:
        warmup_steps: so many first steps are not timed.

    Raises:
        BenchError: it reported no steps, or none after the warm-up.
    """
    started: dict[str, Any] = {}
    steps = []
    for event in read_events(run_path):
        if event.get("event") == "train_started":
            started = event
        elif event.get("event") == "step" and isinstance(event.get("step"), int):
            steps.append(event)
    timed = [
        step
        for step in steps
        if step["step"] > warmup_steps and step.get("step_time_s") is not None
    ]
    if not timed:
        raise BenchError(
            f"{run_path}: no steps to measure, got {len(steps)} step events with a step_time_s "
            f"after {warmup_steps} of warm-up; expected some. Give it more steps, or a program "
            "that calls hpctrain.events.report_step(step, step_time_s=…)."
        )
    numbers = {step["step"] for step in timed}
    return Sample(
        np=_read_np(run_path),
        step_time_s=tuple(_number(step["step_time_s"]) for step in timed),
        losses=_read_losses(steps),
        tokens_per_step=started.get("tokens_per_step") or _tokens_per_step(timed),
        ranks=tuple(_read_ranks(run_path, numbers)),
        **{
            name: started.get(name)
            for name in ("precision", "params", "flops_per_token", "peak_flops", "device_name")
        },
    )


def _read_np(run_path: Path) -> int:
    return json.loads((run_path / "plan.json").read_text(encoding="utf-8"))["np"]


def _number(value: Any) -> float:
    """Return a reported number; NaN for what is none (events spell NaN and infinities out)."""
    if isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _read_losses(steps: list[dict[str, Any]]) -> tuple[float | None, ...]:
    if all(step.get("loss") is None for step in steps):
        return ()
    losses = (_number(step.get("loss")) for step in steps)
    return tuple(loss if math.isfinite(loss) else None for loss in losses)


def _tokens_per_step(steps: list[dict[str, Any]]) -> float | None:
    """Work it out from a program's tokens/s, where it says nothing else."""
    products = [_number(s.get("tokens_per_s")) * _number(s["step_time_s"]) for s in steps]
    products = [product for product in products if math.isfinite(product) and product > 0]
    return math.fsum(products) / len(products) if products else None


def _read_ranks(run_path: Path, numbers: set[int]) -> Iterator[RankSteps]:
    for path in sorted((run_path / "ranks").glob("rank-*.jsonl")):
        records = []
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record.get("event") == "rank_step" and record.get("step") in numbers:
                records.append(record)
        if records:
            yield RankSteps(
                rank=int(path.stem.removeprefix("rank-")),
                host=records[0]["host"],
                device=records[0]["device"],
                peak_bytes=records[-1].get("device_peak_bytes"),
                **{f"{part}_s": tuple(record[f"{part}_s"] for record in records) for part in PARTS},
            )


def _tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in record.items()}
