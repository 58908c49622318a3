"""AdamW, its schedule, and clipping."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hpctrain.config.schema import OptimConfig
from hpctrain.train.apex_parts import load_fused_adam
from hpctrain.train.buckets import Piece


def make_optimizer(pieces: Sequence[Piece], config: OptimConfig) -> torch.optim.Optimizer:
    """Return AdamW over the pieces, with weight decay on matrices only.

    AdamW works element by element, so a flat tensor and the parameters in it get the same
    update (Loshchilov and Hutter 2019, arXiv:1711.05101).
    """
    groups = [
        {"params": [p.tensor for p in pieces if p.decays], "weight_decay": config.weight_decay},
        {"params": [p.tensor for p in pieces if not p.decays], "weight_decay": 0.0},
    ]
    options = {"lr": config.lr, "betas": (config.beta1, config.beta2)}
    groups = [group for group in groups if group["params"]]
    if config.implementation == "apex":
        return load_fused_adam(pieces[0].tensor.device)(groups, **options)
    try:
        return torch.optim.AdamW(groups, fused=True, **options)
    except RuntimeError:  # a device without the fused kernel
        return torch.optim.AdamW(groups, **options)


def resolve_schedule(config: OptimConfig, size: int, tokens_per_step: int) -> OptimConfig:
    """Return the same with the peak rate and the warm-up that `size` ranks come to.

    A rate that suits one rank's batch is scaled to the batch of all: by their number (Goyal et
    al. 2017, arXiv:1706.02677, section 2.1) or its square root (Krizhevsky 2014,
    arXiv:1404.5997, section 5; usual with Adam).

    >>> config = OptimConfig(lr=0.1, lr_scaling="sqrt", warmup_tokens=1000)
    >>> resolved = resolve_schedule(config, size=4, tokens_per_step=300)
    >>> resolved.lr, resolved.warmup_steps
    (0.2, 4)
    """
    factor = {"none": 1.0, "linear": float(size), "sqrt": math.sqrt(size)}[config.lr_scaling]
    warmup_steps = steps_of(config.warmup_tokens, config.warmup_steps, tokens_per_step)
    return dataclasses.replace(config, lr=config.lr * factor, warmup_steps=warmup_steps)


def steps_of(tokens: int | None, steps: int, tokens_per_step: int) -> int:
    """Return the whole steps that `tokens` take; `steps` where they are not given.

    >>> steps_of(1000, 20, tokens_per_step=300), steps_of(None, 20, tokens_per_step=300)
    (4, 20)
    """
    return steps if tokens is None else -(-tokens // tokens_per_step)


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Return the rate of step `step` (0 … steps-1): linear warm-up, then a cosine.

    The cosine ends at ``lr * min_lr_ratio`` in the last step (Loshchilov and Hutter 2017,
    arXiv:1608.03983, equation 5, one cycle).
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - 1 - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * cosine)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate` for every parameter from now on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_by_global_norm(
    gradients: Sequence[Tensor],
    limit: float,
    loss_scale: float = 1.0,
    sum_over_ranks: Callable[[Tensor], object] | None = None,
) -> Tensor:
    """Scale the gradients in place to a global norm of at most `limit`; 0 for no limit.

    Args:
        loss_scale: what the gradients are too large by; taken out as well.
        sum_over_ranks: given where `gradients` are one rank's part of them: sums a tensor, (1,)
            in double precision on the host, in place.

    Returns:
        The norm before clipping, without `loss_scale`, ().
    """
    norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
    norm = torch.linalg.vector_norm(norms)
    if sum_over_ranks is not None:
        square = norm.to("cpu", torch.float64).square().view(1)
        sum_over_ranks(square)
        norm = square.sqrt()[0].to(norm)
    norm = norm / loss_scale
    clips = limit > 0 and (norm.device.type != "cpu" or norm > limit)
    if clips or loss_scale != 1:
        # On a GPU the host must not wait for the norm, so it scales by 1 where nothing is over.
        factor = (limit / (norm + 1e-6)).clamp(max=1.0) if clips else torch.ones_like(norm)
        for gradient in gradients:
            gradient.mul_(factor / loss_scale)
    return norm
