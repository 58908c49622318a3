"""What the scaling model says of each size, beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpctrain.bench.report import lost
from hpctrain.bench.report.measured import Measured
from hpctrain.bench.report.models import SizeModel
from hpctrain.scaling_model.predict import predict_step


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """A prediction for one size.

    Args:
        kind: ``predicted``, ``calibration`` (others are predicted from this one) or ``none``.
        why: from what it was predicted, or why it was not.
        step_s: with its error band; None unless predicted.
        efficiency: 0 to 1, against the measured baseline.
        error: predicted step over the measured one, less 1.
    """

    kind: str
    why: str
    step_s: float | None = None
    low_s: float | None = None
    high_s: float | None = None
    efficiency: float | None = None
    error: float | None = None


def forecast_sizes(
    measured: Sequence[Measured],
    baselines: Mapping[str, Measured],
    models: Mapping[str, SizeModel | str],
) -> dict[str, Forecast]:
    """Return a forecast for each case, by key."""
    return {
        m.case.key: _forecast(m, baselines[m.case.key], models.get(m.case.key)) for m in measured
    }


def _forecast(measured: Measured, baseline: Measured, model: SizeModel | str | None) -> Forecast:
    if model is None:
        return Forecast(kind="calibration", why="one rank: the others are predicted from it")
    if isinstance(model, str):
        return Forecast(kind="none", why=model)
    prediction = predict_step(model.step, model.topology)
    ideal_s = lost.ideal_step_s(measured, baseline)
    return Forecast(
        kind="predicted", why=model.why,
        step_s=prediction.step_s, low_s=prediction.low_s, high_s=prediction.high_s,
        efficiency=ideal_s / prediction.step_s,
        error=prediction.step_s / measured.step_s - 1,
    )  # fmt: skip
