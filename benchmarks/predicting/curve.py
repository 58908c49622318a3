"""The published curve for predict.py: MPT 1B on 8 to 512 H100, from MosaicML's llm-foundry.

It is predicted twice: calibrated on its sizes up to 64 GPUs, by the model of sharded training as
it was run there; and from nothing but published figures, as `hpctrain bench predict` does it,
which has data-parallel training with all-reduces.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hpctrain.scaling_model.instances import find_instance
from hpctrain.scaling_model.planned import plan_step_model
from hpctrain.scaling_model.predict import Prediction, predict_step
from hpctrain.scaling_model.sharded import (
    ShardedJob,
    fit_sharded,
    latency_s,
    predict_sharded_s,
)
from hpctrain.scaling_model.topology import Topology
from hpctrain.train.presets import PRESETS, ModelSize

# Sizes up to 64 GPUs are the same in commit 061f2c7, which the published MFU are from
# (hpctrain/estimate/published.toml); the larger ones came later.
SOURCE = (
    "mosaicml/llm-foundry, scripts/train/benchmarking/README.md (commit 8c8dd48, 2025-07-21), "
    "H100 80GB BF16, 1b, sequence length 2048"
)
MACHINE, SEQ_LEN, GPUS_PER_NODE, LAYERS, PARAMS = "p5.48xlarge", 2048, 8, 24, 1_315_950_592
CALIBRATED_UP_TO, JUDGED = 64, (256, 512)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: sequences are those of a micro-batch, one a step."""

    gpus: int
    sequences: int
    sharding: str
    tokens_per_s_gpu: float

    @property
    def tokens(self) -> int:
        return self.sequences * SEQ_LEN

    @property
    def step_s(self) -> float:
        return self.tokens / self.tokens_per_s_gpu


CURVE = (
    Row(8, 14, "FULL_SHARD", 45455),
    Row(16, 20, "FULL_SHARD", 46037),
    Row(32, 20, "FULL_SHARD", 45130),
    Row(64, 20, "FULL_SHARD", 44402),
    Row(128, 12, "SHARD_GRAD_OP", 44123),
    Row(256, 12, "SHARD_GRAD_OP", 42555),
    Row(512, 12, "SHARD_GRAD_OP", 39837),
)


def topology_of(row: Row) -> Topology:
    machine = find_instance(MACHINE)
    return Topology(row.gpus // GPUS_PER_NODE, GPUS_PER_NODE, machine.link, machine.intra)


def job_of(row: Row) -> ShardedJob:
    return ShardedJob(
        tokens=row.tokens, layers=LAYERS, layer_bytes=2.0 * PARAMS / LAYERS,
        sharding=row.sharding, topology=topology_of(row),
    )  # fmt: skip


def predict_uncalibrated(row: Row) -> Prediction:
    """Predict as `bench predict --instance p5.48xlarge --model xlarge` with this micro-batch."""
    size = ModelSize(**PRESETS["xlarge"], position="learned")
    step = plan_step_model(size, gpu=find_instance(MACHINE).gpu, sequences=row.sequences)
    return predict_step(step, topology_of(row))


def check_curve() -> dict[str, Any]:
    """Calibrate, predict and compare; print it."""
    known = tuple(row for row in CURVE if row.gpus <= CALIBRATED_UP_TO)
    fit = fit_sharded([job_of(row) for row in known], [row.step_s for row in known])
    last = known[-1].tokens_per_s_gpu
    rows = []
    for row in CURVE:
        rate = row.tokens / predict_sharded_s(fit, job_of(row))
        plain = predict_uncalibrated(row)
        rows.append({
            "gpus": row.gpus, "published": row.tokens_per_s_gpu, "predicted": rate,
            "error": rate / row.tokens_per_s_gpu - 1, "repeated_error":
            last / row.tokens_per_s_gpu - 1, "calibrated_on": row in known,
            "exposed_latency_s": fit.exposed_part * latency_s(job_of(row)),
            "uncalibrated": {
                "predicted": row.tokens / plain.step_s,
                "low": row.tokens / plain.high_s, "high": row.tokens / plain.low_s,
                "error": row.step_s / plain.step_s - 1,
                "in_band": plain.low_s <= row.step_s <= plain.high_s,
            },
        })  # fmt: skip
        print(_words(rows[-1]))
    judged = [row for row in rows if row["gpus"] in JUDGED]
    met = all(abs(row["error"]) < abs(row["repeated_error"]) for row in judged)
    print(f"goal: closer at {JUDGED[0]} and {JUDGED[1]}: {'met' if met else 'not met'}")
    return {
        "what": "predict_curve", "source": SOURCE, "met": met, "rows": rows,
        "fitted": {**asdict(fit), "jitter_cv": fit.jitter_s_per_token / fit.s_per_token},
        "latency_source": "NVIDIA/nccl src/graph/tuning.cc, see hpctrain/scaling_model/nics.toml",
    }  # fmt: skip


def _words(row: dict[str, Any]) -> str:
    plain = row["uncalibrated"]
    return (
        f"{row['gpus']:>4} GPUs: {row['published']:6.0f} tokens/s each, predicted "
        f"{row['predicted']:6.0f} ({row['error']:+.1%}), the last point repeated "
        f"{row['repeated_error']:+.1%}{'  calibrated on' if row['calibrated_on'] else ''}\n"
        f"           uncalibrated {plain['predicted']:6.0f} ({plain['error']:+.1%}), band "
        f"{plain['low']:.0f} to {plain['high']:.0f}{'' if plain['in_band'] else ': missed'}"
    )
