"""The model of a step that nobody has measured: from FLOPs, a GPU's peak and an MFU."""

from __future__ import annotations

from hpctrain.errors import ConfigError, did_you_mean, raise_all
from hpctrain.gpu_peaks import peak_flops
from hpctrain.scaling_model.step import (
    GRADIENT_BYTES,
    HOROVOD_CYCLE_S,
    MIB,
    WIRE_FACTORS,
    BucketModel,
    StepModel,
    plan_bucket_models,
)
from hpctrain.train.flops import flops_per_token
from hpctrain.train.presets import ModelSize, count_parameters

# Names as clouds and people write them → what the driver says (hpctrain.gpu_peaks).
GPUS = {
    "v100": "Tesla V100-SXM2-32GB",
    "t4": "Tesla T4",
    "a100": "NVIDIA A100-SXM4-80GB",
    "a10g": "NVIDIA A10G",
    "l4": "NVIDIA L4",
    "h100": "NVIDIA H100 80GB HBM3",
    "h200": "NVIDIA H200",
    "b200": "NVIDIA B200",
}
# One GPU's MFU in 16 bits where nothing was measured, by parameters (up to): MosaicML llm-foundry,
# scripts/train/benchmarking/README.md (8 GPUs, MPT 125M, 350M, 760M, 1B).
_PUBLISHED_MFU = {
    "a100": ((200e6, 0.448), (500e6, 0.516), (1000e6, 0.569), (float("inf"), 0.599)),
    "h100": ((1000e6, 0.379), (float("inf"), 0.424)),
}
PUBLISHED_SOURCE = "published: llm-foundry, scripts/train/benchmarking"
ASSUMED_MFU, ASSUMED_ERROR = 0.40, 0.25
PUBLISHED_ERROR, GIVEN_ERROR = 0.10, 0.05
# How much GPUs of a job differ from step to step: not published anywhere that we know of. That of
# the llm-foundry curve on 8 to 64 H100 (benchmarks/predict.py curve) is at most this.
ASSUMED_JITTER = 0.01


def plan_step_model(
    size: ModelSize,
    *,
    gpu: str,
    precision: str = "bf16",
    mfu: float | None = None,
    sequences: int = 8,
    accum: int = 1,
    bucket_mb: float = 25.0,
    compression: str = "none",
) -> StepModel:
    """Return the step of one GPU, computed and not measured.

    Args:
        gpu: such as ``a100-80gb``; what follows the first ``-`` is memory, and of no account here.
        mfu: of a GPU that is alone, optimizer included; by default a published one.
        sequences: of one micro-batch on one GPU.

    Raises:
        ConfigError: the GPU is unknown, or has no peak for this precision.
    """
    kind = gpu.lower().partition("-")[0]
    errors = []
    if kind not in GPUS:
        errors.append(
            f"--gpu: unknown, got '{gpu}'; expected one of {', '.join(GPUS)}, with or without "
            f"its memory (a100-80gb).{did_you_mean(kind, GPUS)} Choose the nearest."
        )
    peak = peak_flops(GPUS.get(kind, ""), precision)
    if peak is None and not errors:
        errors.append(
            f"train.precision: no peak is known for {gpu}, got '{precision}'; expected one that "
            "it has units for. Set train.precision=fp16."
        )
    if mfu is not None and not 0.0 < mfu <= 1.0:
        errors.append(
            f"--mfu: out of range, got {mfu}; expected above 0 and at most 1. "
            "Measured ones are 0.3 to 0.6."
        )
    raise_all(ConfigError, errors)
    mfu, error, words = _choose_mfu(kind, count_parameters(size), mfu)
    computing_s = sequences * size.seq_len * flops_per_token(size) / (peak * mfu)
    return StepModel(
        data_s=0.0,
        forward_s=computing_s / 3,  # a third of the FLOPs: 2N of 6N
        backward_s=computing_s * 2 / 3,
        optimizer_s=0.0,
        buckets=plan_transformer_buckets(size, bucket_mb, WIRE_FACTORS[compression]),
        jitter_cv=ASSUMED_JITTER,
        accum=accum,
        cycle_s=HOROVOD_CYCLE_S,
        negotiates=True,
        error=error,
        source=f"MFU {mfu:.0%}, {words}",
    )


def plan_transformer_buckets(
    size: ModelSize, bucket_mb: float, wire_factor: float = 1.0
) -> tuple[BucketModel, ...]:
    """Return the buckets of our transformer, with when they are full.

    The output's product comes first in backward; the embedding, whose weights it shares, is
    complete only at the very end.
    """
    d, layers = size.d_model, size.num_layers
    matrices = (3 * d * d, d * d, 4 * d * d, 4 * d * d)
    head_flops = size.vocab_size * d
    attention = 2 * size.seq_len * d  # 12·d·s FLOPs beside 6 a parameter
    numels, shares = [size.vocab_size * d], [0.0]
    for _ in range(layers):
        numels += matrices
        shares += [matrices[0] + attention, *matrices[1:]]
    numels.append(0)
    shares.append(head_flops)
    return plan_bucket_models(
        [GRADIENT_BYTES * numel for numel in numels],
        bucket_mb * MIB,
        backward_shares=shares,
        wire_factor=wire_factor,
    )


def _choose_mfu(kind: str, params: int, given: float | None) -> tuple[float, float, str]:
    if given is not None:
        return given, GIVEN_ERROR, "as given"
    table = _PUBLISHED_MFU.get(kind)
    if table is None:
        return ASSUMED_MFU, ASSUMED_ERROR, f"assumed: none is published here for {kind}"
    return next(mfu for limit, mfu in table if params <= limit), PUBLISHED_ERROR, PUBLISHED_SOURCE
