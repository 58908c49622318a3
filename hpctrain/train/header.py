"""What a run says of itself before its first step."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from hpctrain.config import Config
from hpctrain.config.schema import OptimConfig, TrainConfig
from hpctrain.train.choices import ignored_settings
from hpctrain.train.communicator import Communicator
from hpctrain.train.setup import Setup

Line = tuple[str, str]


def describe_run(
    config: Config, optim: OptimConfig, setup: Setup, comm: Communicator
) -> list[Line]:
    """Return the header's lines: a word and what there is to say of it.

    Args:
        optim: the configuration's with what `resolve_schedule` made of it.
    """
    return [
        ("model", _describe_model(config, setup)),
        ("data", _describe_data(config, setup)),
        ("step", f"{setup.global_batch} sequences of {setup.size.seq_len} tokens = "
                 f"{setup.tokens_per_step:,} tokens"),
        ("ranks", f"{comm.size} on {_describe_device(setup.device)}, {comm.backend}, "
                  f"{config.train.precision}"),
        *_describe_choices(config, optim, setup, comm.size),
        *(("warning", warning) for warning in _warnings(config, optim, setup)),
    ]  # fmt: skip


def _describe_model(config: Config, setup: Setup) -> str:
    size = setup.size
    params = sum(p.numel() for p in setup.model.parameters())
    shape = (
        f"{size.num_layers} layers, d_model {size.d_model}, {size.num_heads} heads, "
        f"{size.position} positions"
    )
    return f"{params:,} parameters: {config.model.factory or shape}"


def _describe_data(config: Config, setup: Setup) -> str:
    validation = f"{setup.validation.sequences} sequences validate"
    if setup.validation.sequences < config.train.eval_sequences:
        validation += f" (train.eval_sequences = {config.train.eval_sequences}: there are no more)"
    data = setup.data
    return f"{data.description}: {data.training_tokens:,} training tokens, {validation}"


def _describe_device(device: torch.device) -> str:
    if device.type != "cpu":
        return f"{device}"
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'' if threads == 1 else 's'} each"


def _describe_choices(
    config: Config, optim: OptimConfig, setup: Setup, size: int
) -> Iterator[Line]:
    """Yield what comes out different from what is written."""
    if optim.lr != config.optim.lr:
        yield (
            "lr",
            (
                f"{optim.lr:g}: optim.lr = {config.optim.lr:g}, scaled to {size} ranks "
                f"(optim.lr_scaling = {optim.lr_scaling})"
            ),
        )
    if config.train.tokens is not None:
        yield "steps", f"{setup.steps:,} for train.tokens = {config.train.tokens:,}"


def _warnings(config: Config, optim: OptimConfig, setup: Setup) -> Iterator[str]:
    train = config.train
    if train.tokens is not None and train.steps != TrainConfig().steps:
        yield f"train.steps = {train.steps} is ignored: train.tokens is given"
    if (
        config.optim.warmup_tokens is not None
        and config.optim.warmup_steps != OptimConfig().warmup_steps
    ):
        steps = config.optim.warmup_steps
        yield f"optim.warmup_steps = {steps} is ignored: optim.warmup_tokens is given"
    if optim.warmup_steps > setup.steps:
        yield (
            f"a warm-up of {optim.warmup_steps} steps is not over within the run's {setup.steps}: "
            "the rate never reaches optim.lr"
        )
    for name in ignored_settings(config):
        yield f"{name} is ignored: model.factory builds the model"
    if setup.precision.warning:
        yield setup.precision.warning
