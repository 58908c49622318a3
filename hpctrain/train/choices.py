"""What settings come to together, and which of them do not go together. No torch here.

Ranks ask this when they set up, and `hpctrain preflight` before there are any.
"""

from __future__ import annotations

from hpctrain.config.schema import (
    DEFAULT_BATCH_SIZE_PER_RANK,
    CommConfig,
    Config,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from hpctrain.errors import ConfigError

# What a model's factory does not get, and what our own transformer alone can do.
_NOT_FOR_FACTORIES = ("d_model", "num_layers", "num_heads", "position")


def resolve_global_batch_size(train: TrainConfig, size: int) -> int:
    """Return the sequences of one optimizer step over all `size` ranks.

    Raises:
        ConfigError: there are fewer sequences than ranks.
    """
    if train.global_batch_size is None:
        return size * (train.batch_size_per_rank or DEFAULT_BATCH_SIZE_PER_RANK)
    if train.global_batch_size < size:
        raise ConfigError(
            f"train.global_batch_size: fewer sequences than ranks, got {train.global_batch_size} "
            f"for {size} ranks; expected at least {size}. Start fewer ranks (--np "
            f"{train.global_batch_size}) or give a larger batch."
        )
    return train.global_batch_size


def resolve_exchange(comm: CommConfig, optim: OptimConfig) -> str:
    """Return which exchange is meant: ``buckets`` or ``native``.

    Raises:
        ConfigError: the optimizer is to be sharded, which only our buckets can.
    """
    if comm.exchange == "native" and optim.sharded:
        raise ConfigError(
            "optim.sharded: needs our own buckets, got comm.exchange = 'native'; expected "
            "'buckets' or 'auto'. Set one or the other."
        )
    if comm.exchange == "auto":
        return "native" if comm.backend == "ddp" and not optim.sharded else "buckets"
    return comm.exchange if comm.backend != "none" else "buckets"


def check_recomputing(train: TrainConfig) -> None:
    """Refuse blocks that are computed again under apex-O2.

    Raises:
        ConfigError: both are asked for.
    """
    if train.activation_checkpointing and train.precision == "apex-O2":
        raise ConfigError(
            "train.activation_checkpointing: blocks are computed again with weights that apex-O2 "
            "has put back by then, got both; expected one of them. Set train.precision=bf16."
        )


def ignored_settings(config: Config) -> list[str]:
    """Return the settings that a model of the user's own leaves without effect."""
    if config.model.factory is None:
        return []
    default = ModelConfig()
    ignored = [
        f"model.{name}"
        for name in _NOT_FOR_FACTORIES
        if getattr(config.model, name) != getattr(default, name)
    ]
    if config.train.activation_checkpointing:
        ignored.append("train.activation_checkpointing")
    return ignored
