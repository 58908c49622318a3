"""The published curve for predict.py: MPT 1B on 8 to 512 H100, from MosaicML's llm-foundry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpctrain.scaling_model.instances import find_instance
from hpctrain.scaling_model.jitter import expected_maximum
from hpctrain.scaling_model.least_squares import solve_non_negative
from hpctrain.scaling_model.topology import Topology, allreduce_s

SOURCE = (
    "mosaicml/llm-foundry, scripts/train/benchmarking/README.md (commit 8c8dd48, 2025-07-21), "
    "H100 80GB BF16, 1b, sequence length 2048"
)
SEQ_LEN, GPUS_PER_NODE, LAYERS, PARAMS = 2048, 8, 24, 1_315_950_592
CALIBRATED_UP_TO, JUDGED = 64, (256, 512)
# All-gathers before a layer's forward and again before its backward, reduce-scatters behind it
# (torch's FSDP: FULL_SHARD drops gathered weights after forward, SHARD_GRAD_OP keeps them).
COLLECTIVES = {"FULL_SHARD": 3, "SHARD_GRAD_OP": 2}


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


def terms(row: Row) -> tuple[float, float, float]:
    """Return what the unknowns of a step are multiplied by: time a token, how much of that GPUs
    differ by, and the part of the collectives' latency that does not hide.

    A gather or scatter is half of a ring all-reduce; NCCL has no tree for them. Their bandwidth
    (110 MB a layer over 3200 Gbit/s a node) hides behind some 10 ms of computing a layer; latency
    grows with the ring.
    """
    machine = find_instance("p5.48xlarge")
    topology = Topology(
        row.gpus // GPUS_PER_NODE, GPUS_PER_NODE, machine.link, machine.intra, "ring"
    )
    one_s = allreduce_s(2.0 * PARAMS / LAYERS, topology).latency_s / 2
    latency_s = COLLECTIVES[row.sharding] * LAYERS * one_s
    return float(row.tokens), row.tokens * expected_maximum(row.gpus), latency_s


def fit_curve(rows: tuple[Row, ...]) -> tuple[float, float, float]:
    """Return (s a token, what GPUs differ by in s a token, the part that does not hide, 0 to 1)."""
    scaled = [tuple(term / row.step_s for term in terms(row)) for row in rows]
    found = solve_non_negative(scaled, [1.0] * len(rows))
    if found[2] <= 1.0:
        return found
    # More than all of it cannot be waited for.
    rest = [1.0 - row[2] for row in scaled]
    return (*solve_non_negative([row[:2] for row in scaled], rest), 1.0)


def check_curve() -> dict[str, Any]:
    """Calibrate, predict and compare; print it."""
    known = tuple(row for row in CURVE if row.gpus <= CALIBRATED_UP_TO)
    per_token_s, differing_s, part = fit_curve(known)
    last = known[-1].tokens_per_s_gpu
    rows = []
    for row in CURVE:
        fixed, differs, latency_s = terms(row)
        step_s = fixed * per_token_s + differs * differing_s + part * latency_s
        rate = row.tokens / step_s
        rows.append({
            "gpus": row.gpus, "published": row.tokens_per_s_gpu, "predicted": rate,
            "error": rate / row.tokens_per_s_gpu - 1, "repeated_error":
            last / row.tokens_per_s_gpu - 1, "calibrated_on": row in known,
            "exposed_latency_s": part * latency_s,
        })  # fmt: skip
        print(f"{row.gpus:>4} GPUs: {row.tokens_per_s_gpu:6.0f} tokens/s each, predicted "
              f"{rate:6.0f} ({rows[-1]['error']:+.1%}), the last point repeated "
              f"{rows[-1]['repeated_error']:+.1%}{'' if row not in known else '  calibrated on'}"
        )  # fmt: skip
    judged = [row for row in rows if row["gpus"] in JUDGED]
    met = all(abs(row["error"]) < abs(row["repeated_error"]) for row in judged)
    print(f"goal: closer at {JUDGED[0]} and {JUDGED[1]}: {'met' if met else 'not met'}")
    return {
        "what": "predict_curve", "source": SOURCE, "met": met, "rows": rows,
        "fitted": {"s_per_token": per_token_s, "jitter_cv": differing_s / per_token_s,
                   "exposed_latency_part": part},
        "latency_source": "NVIDIA/nccl src/graph/tuning.cc, see hpctrain/scaling_model/nics.toml",
    }  # fmt: skip
