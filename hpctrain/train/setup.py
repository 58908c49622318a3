"""What a rank needs before its first step, and the proof that every rank has it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpctrain.config import Config
from hpctrain.errors import DataError, HpctrainError, PlanError, raise_all
from hpctrain.train.agreement import raise_together
from hpctrain.train.communicator import Communicator
from hpctrain.train.data import TrainingBatches, ValidationBatches, resolve_global_batch_size, share
from hpctrain.train.device import choose_device
from hpctrain.train.exchange import resolve_exchange
from hpctrain.train.model import build_model, compile_model
from hpctrain.train.own_model import build_own_model
from hpctrain.train.precision import Precision
from hpctrain.train.prepared import PreparedData, open_prepared
from hpctrain.train.presets import ModelSize, fits_vocabulary, resolve_model
from hpctrain.train.shards import TRAIN, VALIDATION, DataIndex, Windows


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What a rank has before it talks to the others."""

    size: ModelSize
    device: torch.device
    precision: Precision
    data: str
    """What is read, in a few words."""
    index: DataIndex
    folder: Path
    """Where the tokenizer's file is, if it has one."""
    global_batch: int
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

    mine = int(setup.index.digest[:12], 16)
    first = int(comm.broadcast(torch.tensor([mine]), "data digest"))
    if mine != first:
        problem = DataError(
            f"rank {comm.rank}: {setup.data} holds other tokens than on rank 0, got digest "
            f"{mine:012x}; expected {first:012x}. Copy rank 0's folder to this host."
        )
    raise_together(comm, problem)
    return setup


def _set_up(config: Config, comm: Communicator) -> Setup:
    train = config.train
    global_batch, size, device, prepared, _ = _try_all(
        lambda: resolve_global_batch_size(train, comm.size),
        lambda: resolve_model(config.model),
        lambda: choose_device(train.device, comm.local_rank, comm.local_size),
        lambda: open_prepared(config.data),
        lambda: resolve_exchange(config.comm, config.optim),
    )
    _check_data(config, size, prepared)
    return Setup(
        size=size,
        device=device,
        precision=Precision(train.precision, device),
        data=prepared.description,
        index=prepared.index,
        folder=Path(prepared.names[0]),
        global_batch=global_batch,
        batches=TrainingBatches(
            prepared.samples(TRAIN, size.seq_len), global_batch=global_batch, seed=train.seed,
            rank=comm.rank, size=comm.size, device=device,
        ),
        validation=ValidationBatches(
            prepared.samples(VALIDATION, size.seq_len), sequences=train.eval_sequences,
            batch_size=max(1, len(share(global_batch, 0, comm.size)) // train.grad_accum_steps),
            rank=comm.rank, size=comm.size, device=device,
        ),
        model=_make_model(config, size, device),
        micro_steps=min(len(share(global_batch, comm.rank, comm.size)), train.grad_accum_steps),
    )  # fmt: skip


def _make_model(config: Config, size: ModelSize, device: torch.device) -> nn.Module:
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
    return model.to(device)


def _try_all(*parts: Callable[[], Any]) -> list[Any]:
    """Return what the parts return, or raise the messages of all that fail as one error."""
    results, errors = [], []
    for part in parts:
        try:
            results.append(part())
        except HpctrainError as error:
            errors.append(error)
    if errors:
        raise type(errors[0])(*(message for error in errors for message in error.messages))
    return results


def _check_data(config: Config, size: ModelSize, data: PreparedData) -> None:
    errors = []
    for where, index in zip(data.names, data.indexes, strict=True):
        if not fits_vocabulary(index.vocab_size, size.vocab_size):
            errors.append(
                f"{where}: its tokens do not fit the model, got vocab_size {index.vocab_size} "
                f"({index.tokenizer}); expected model.vocab_size = {size.vocab_size}. Set "
                f"model.vocab_size={index.vocab_size}, or prepare data with another tokenizer."
            )
        if config.data.tokenizer not in (None, index.tokenizer):
            errors.append(
                f"{where}: made with another tokenizer, got {index.tokenizer!r}; expected "
                f"data.tokenizer = {config.data.tokenizer!r}."
            )
        if len(Windows(Path(where), index, TRAIN, size.seq_len)) == 0:
            errors.append(
                f"{where}: less than one sequence of training text, got "
                f"{index.splits[TRAIN].tokens} tokens; expected at least model.seq_len + 1 = "
                f"{size.seq_len + 1} in a shard. Prepare more text, or set a shorter "
                "model.seq_len."
            )
    raise_all(DataError, errors)
