"""The model of a step that nobody has measured: from FLOPs, a GPU's peak and an MFU."""

from __future__ import annotations

from hpctrain.errors import ConfigError, raise_all
from hpctrain.estimate.gpus import Gpu, find_gpu
from hpctrain.estimate.mfu import find_published
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

GIVEN_ERROR = 0.05
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
        gpu: as `hpctrain estimate --gpu` takes it, such as ``a100-80gb``.
        mfu: of a GPU that is alone, optimizer included; by default a published one.
        sequences: of one micro-batch on one GPU.

    Raises:
        ConfigError: the GPU is unknown, has no such precision, or no MFU is published for it.
    """
    errors = []
    found = peak = None
    try:
        found = find_gpu(gpu)
        peak = found.peak_flops(precision)
    except ConfigError as problem:
        errors += problem.messages
    if found is not None and peak is None:
        errors.append(
            f"train.precision: {found.name} has no such units, got '{precision}'; expected one "
            f"that it has. Set train.precision={found.best_precision}."
        )
    try:
        check_mfu(mfu)
    except ConfigError as problem:
        errors += problem.messages
    raise_all(ConfigError, errors)
    assert found is not None  # else an error was raised
    assert peak is not None
    mfu, error, words = _choose_mfu(found, count_parameters(size), size.seq_len, precision, mfu)
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


def check_mfu(mfu: float | None) -> None:
    """Refuse a utilization that cannot be; None is not given.

    Raises:
        ConfigError: it is none.
    """
    if mfu is not None and not 0.0 < mfu <= 1.0:
        raise ConfigError(
            f"--mfu: out of range, got {mfu}; expected above 0 and at most 1. "
            "Measured ones are 0.3 to 0.6."
        )


def _choose_mfu(
    gpu: Gpu, params: int, seq_len: int, precision: str, given: float | None
) -> tuple[float, float, str]:
    if given is not None:
        return given, GIVEN_ERROR, "as given"
    figure = find_published(gpu, params, precision, seq_len)
    if figure is None:
        raise ConfigError(
            f"--mfu: nothing is published for {params / 1e6:.4g} million parameters in {precision} "
            f"on {gpu.name}, got none; expected a share such as 0.4. Measure there (hpctrain "
            "bench, then --from), or give --mfu by your own experience."
        )
    return figure.value, figure.error, f"published: {figure.source}"
