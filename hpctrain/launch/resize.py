"""The configuration of the next attempt: the same training, on perhaps fewer ranks. Pure."""

from __future__ import annotations

import math
from dataclasses import replace

from hpctrain.config import Config
from hpctrain.config.schema import DEFAULT_BATCH_SIZE_PER_RANK, OptimConfig, TrainConfig


def plan_next_config(config: Config, first_np: int, np: int, *, has_saved: bool) -> Config:
    """Return what the next attempt trains by.

    Args:
        config: the first attempt's.
        first_np: ranks of the first attempt.
        np: ranks of the next.
        has_saved: whether an attempt of this launch has completed a checkpoint. It goes on from
            there then, wherever the first was told to begin.
    """
    if has_saved:
        config = replace(config, checkpoint=replace(config.checkpoint, resume="auto"))
    if np == first_np:
        return config
    return replace(
        config,
        train=keep_global_batch(config.train, first_np, np),
        optim=keep_learning_rate(config.optim, first_np),
    )


def keep_global_batch(train: TrainConfig, first_np: int, np: int) -> TrainConfig:
    """Return settings by which `np` ranks do the steps of `first_np`: the same sequences a step,
    and no rank's micro-batch, which decides over memory, larger than the largest was.

    >>> kept = keep_global_batch(TrainConfig(batch_size_per_rank=8), first_np=4, np=3)
    >>> kept.global_batch_size, kept.batch_size_per_rank, kept.grad_accum_steps
    (32, None, 2)
    """
    total = train.global_batch_size or first_np * (
        train.batch_size_per_rank or DEFAULT_BATCH_SIZE_PER_RANK
    )
    # Shares, and the parts of a share, differ by one at most: the largest counts.
    largest_micro_batch = math.ceil(math.ceil(total / first_np) / train.grad_accum_steps)
    needed = math.ceil(math.ceil(total / np) / largest_micro_batch)
    return replace(
        train,
        global_batch_size=total,
        batch_size_per_rank=None,
        grad_accum_steps=max(train.grad_accum_steps, needed),
    )


def keep_learning_rate(optim: OptimConfig, first_np: int) -> OptimConfig:
    """Return the rate that the first attempt had as a plain one: it belongs to the batch, which
    stays, and is not to be scaled to another number of ranks.

    >>> kept = keep_learning_rate(OptimConfig(lr=0.1, lr_scaling="sqrt"), first_np=4)
    >>> kept.lr, kept.lr_scaling
    (0.2, 'none')
    """
    factor = {"none": 1.0, "linear": float(first_np), "sqrt": math.sqrt(first_np)}
    return replace(optim, lr=optim.lr * factor[optim.lr_scaling], lr_scaling="none")
