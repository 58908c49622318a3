"""What a rank needs before its first step, and the proof that every rank has it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hpctrain.config import Config
from hpctrain.errors import DataError, HpctrainError, PlanError, raise_all
from hpctrain.train.agreement import raise_together
from hpctrain.train.apex_parts import load_fused_adam
from hpctrain.train.choices import (
    check_recomputing,
    resolve_exchange,
    resolve_global_batch_size,
)
from hpctrain.train.communicator import Communicator
from hpctrain.train.data import TrainingBatches, ValidationBatches, share
from hpctrain.train.device import choose_device
from hpctrain.train.model import build_model, compile_model
from hpctrain.train.optimizer import steps_of
from hpctrain.train.own_data import OwnData
from hpctrain.train.own_model import build_own_model
from hpctrain.train.precision import Precision
from hpctrain.train.prepared import PreparedData, open_prepared
from hpctrain.train.presets import ModelSize, resolve_model
from hpctrain.train.shards import TRAIN, VALIDATION


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What a rank has before it talks to the others."""

    size: ModelSize
    device: torch.device
    precision: Precision
    data: PreparedData | OwnData
    global_batch: int
    """Sequences of one step, over all ranks."""
    tokens_per_step: int
    steps: int
    """Steps of the whole run."""
    batches: TrainingBatches
    validation: ValidationBatches
    model: nn.Module
    micro_steps: int
    """Forward and backward passes a step on this rank."""


def set_up_together(config: Config, comm: Communicator) -> Setup:
    """Return what this rank trains with, once every rank has it and all have the same data.

    Raises:
        HpctrainError: on every rank if any rank lacks something.
    """
    setup, problem = None, None
    try:
        setup = _set_up(config, comm)
    except HpctrainError as error:
        problem = error
    raise_together(comm, problem)
    assert setup is not None

    mine = int(setup.data.digest[:12], 16)
    first = int(comm.broadcast(torch.tensor([mine]), "data digest"))
    if mine != first:
        problem = DataError(
            f"rank {comm.rank}: {setup.data.description} holds other tokens than on rank 0, got "
            f"digest {mine:012x}; expected {first:012x}. Copy rank 0's data to this host."
        )
    raise_together(comm, problem)
    return setup


def _set_up(config: Config, comm: Communicator) -> Setup:
    train = config.train
    global_batch, size, device, data, *_ = _try_all(
        lambda: resolve_global_batch_size(train, comm.size),
        lambda: resolve_model(config.model),
        lambda: choose_device(train.device, comm.local_rank, comm.local_size),
        lambda: _open_data(config),
        lambda: resolve_exchange(config.comm, config.optim),
        lambda: check_recomputing(train),
    )
    precision, *_ = _try_all(
        lambda: Precision(train.precision, device),
        lambda: raise_all(DataError, data.problems(size, config.data.tokenizer)),
        lambda: config.optim.implementation == "apex" and load_fused_adam(device),
    )
    return Setup(
        size=size,
        device=device,
        precision=precision,
        data=data,
        global_batch=global_batch,
        tokens_per_step=global_batch * size.seq_len,
        steps=steps_of(train.tokens, train.steps, global_batch * size.seq_len),
        batches=TrainingBatches(
            data.samples(TRAIN, size.seq_len), global_batch=global_batch, seed=train.seed,
            rank=comm.rank, size=comm.size, device=device,
        ),
        validation=ValidationBatches(
            data.samples(VALIDATION, size.seq_len), sequences=train.eval_sequences,
            batch_size=max(1, len(share(global_batch, 0, comm.size)) // train.grad_accum_steps),
            rank=comm.rank, size=comm.size, device=device,
        ),
        model=_make_model(config, size, device, precision),
        micro_steps=min(len(share(global_batch, comm.rank, comm.size)), train.grad_accum_steps),
    )  # fmt: skip


def _open_data(config: Config) -> PreparedData | OwnData:
    if config.data.factory is None:
        return open_prepared(config.data)
    return OwnData(config.data.factory, resolve_model(config.model).seq_len)


def _make_model(
    config: Config, size: ModelSize, device: torch.device, precision: Precision
) -> nn.Module:
    train = config.train
    if config.model.factory is not None:
        model = build_own_model(config.model.factory, size, train.seed)
    else:
        model = build_model(size, train.seed)
        model.recomputes_blocks = train.activation_checkpointing
    if train.compile:
        compiler = os.environ.get("CXX", "g++")
        if device.type == "cpu" and shutil.which(compiler) is None:
            raise PlanError(
                f"train.compile: torch.compile needs a C++ compiler, got no {compiler} on PATH; "
                "expected one. Install it (apt-get install g++), or set train.compile=false."
            )
        compile_model(model)
    model = model.to(device)
    precision.adopt(model)
    return model


def _try_all(*parts: Callable[[], Any]) -> list[Any]:
    """Return what the parts return, or raise the messages of all that fail as one error."""
    results, errors = [], []
    for part in parts:
        try:
            results.append(part())
        except HpctrainError as error:
            errors.append(error)
    if errors:
        messages = dict.fromkeys(message for error in errors for message in error.messages)
        raise type(errors[0])(*messages)
    return results
