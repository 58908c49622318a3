"""What a model computes and weighs, from its shape alone."""

from __future__ import annotations

from dataclasses import dataclass

from hpctrain.train.flops import flops_per_token
from hpctrain.train.presets import ModelSize, count_parameters

CHECKPOINT_BYTES_PER_PARAMETER = 12  # fp32: the weight and AdamW's two moments


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCost:
    """Args:
    flops_per_token: of forward and backward, nothing computed twice.
    checkpoint_bytes: of one checkpoint, all ranks' shares together.
    """

    params: int
    flops_per_token: float
    checkpoint_bytes: float


def cost_model(size: ModelSize) -> ModelCost:
    """Return what a model of that shape costs.

    >>> from hpctrain.config.schema import ModelConfig
    >>> from hpctrain.train.presets import resolve_model
    >>> cost = cost_model(resolve_model(ModelConfig(preset="xlarge")))
    >>> round(cost.params / 1e9, 3), round(312e12 / cost.flops_per_token)  # an A100's ceiling
    (1.315, 34382)
    """
    params = count_parameters(size)
    return ModelCost(
        params=params,
        flops_per_token=flops_per_token(size),
        checkpoint_bytes=float(CHECKPOINT_BYTES_PER_PARAMETER * params),
    )
