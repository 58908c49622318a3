"""How much a step computes. No torch here."""

from __future__ import annotations

from hpctrain.config import Config
from hpctrain.config.schema import DEFAULT_BATCH_SIZE_PER_RANK
from hpctrain.errors import ConfigError
from hpctrain.train.presets import ModelSize, count_parameters, resolve_model


def flops_per_token(size: ModelSize) -> float:
    """Return the FLOPs of forward and backward for one token: 6·N + 12·L·d·s.

    N are the parameters without learned positions, which are looked up and not multiplied; the
    second term is attention. (Chowdhery et al. 2022, "PaLM", appendix B; nanoGPT's
    `estimate_mfu`.) Work that is done again, as by activation checkpointing, does not count.

    >>> tiny = {"d_model": 128, "num_layers": 4, "num_heads": 4, "vocab_size": 256, "seq_len": 128}
    >>> flops_per_token(ModelSize(**tiny, position="rope"))
    5708544.0
    """
    learned_positions = size.seq_len * size.d_model if size.position == "learned" else 0
    parameters = count_parameters(size) - learned_positions
    return 6.0 * parameters + 12.0 * size.num_layers * size.d_model * size.seq_len


def rank_flops(config: Config, size: int) -> float | None:
    """Return the FLOPs of one step on one of `size` ranks.

    None for a model of one's own, and for one that cannot be: that is told elsewhere.
    """
    if config.model.factory is not None:
        return None
    try:
        model, train = resolve_model(config.model), config.train
    except ConfigError:
        return None
    per_rank = train.batch_size_per_rank or DEFAULT_BATCH_SIZE_PER_RANK
    sequences = per_rank if train.global_batch_size is None else train.global_batch_size / size
    return sequences * model.seq_len * flops_per_token(model)


def utilization(
    tokens_per_s: float, flops_per_token: float | None, peak_flops: float | None, size: int
) -> float | None:
    """Return the model FLOPs utilization, 0 to 1, of `size` equal devices; None where unknown.

    Args:
        tokens_per_s: of all devices together.
        peak_flops: of one device (FLOP/s).
    """
    if flops_per_token is None or peak_flops is None:
        return None
    return tokens_per_s * flops_per_token / (size * peak_flops)
