"""The training run of one rank, from its configuration to its last step.

Whatever the number of ranks, a step sees the same sequences, and each rank divides its summed
token losses by the token count of the whole step. The sum over the ranks is then the global
mean, of the loss and of the gradient, even where ranks have unequal shares.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hpctrain.config import Config
from hpctrain.errors import FaultyHostError, TrainingError
from hpctrain.pulse import PulseWriter
from hpctrain.train.agreement import raise_together
from hpctrain.train.checkpoint import Checkpoints
from hpctrain.train.communicator import Communicator
from hpctrain.train.data import ValidationBatches
from hpctrain.train.exchange import open_exchange
from hpctrain.train.flops import flops_per_token
from hpctrain.train.header import describe_run
from hpctrain.train.measure import Reporter, StepClock
from hpctrain.train.model import sum_token_losses
from hpctrain.train.optimizer import (
    clip_by_global_norm,
    learning_rate,
    make_optimizer,
    resolve_schedule,
    set_learning_rate,
)
from hpctrain.train.precision import StepGuard
from hpctrain.train.setup import set_up_together


def run_training(config: Config, comm: Communicator) -> None:
    """Train; every rank calls this with the same configuration.

    Raises:
        HpctrainError: on every rank if any rank cannot start, or the loss stops being a number.
    """
    pulse = PulseWriter()
    pulse.enter("start")
    setup = set_up_together(config, comm)
    train, tokens_per_step = config.train, setup.tokens_per_step
    model, batches = setup.model, setup.batches
    optim = resolve_schedule(config.optim, comm.size, tokens_per_step)
    exchange = open_exchange(model, comm, config, setup.micro_steps)
    optimizer = exchange.attach(make_optimizer(exchange.pieces, optim))
    sum_squares = None
    if exchange.is_sharded:
        sum_squares = functools.partial(comm.all_reduce_sum, name="gradient norm")
    guard = StepGuard(train.precision, train.on_nan)
    reporter = Reporter(
        comm, setup.device, tokens_per_step, precision=train.precision,
        flops_per_token=None if config.model.factory else flops_per_token(setup.size),
    )  # fmt: skip
    reporter.started(
        describe_run(config, optim, setup, comm),
        params=sum(p.numel() for p in model.parameters()), steps=setup.steps,
        backend=comm.backend, exchange=exchange.name, sharded=exchange.is_sharded,
        precision=train.precision, data=setup.data.description,
        global_batch_size=setup.global_batch, seq_len=setup.size.seq_len,
    )  # fmt: skip
    checkpoints = Checkpoints(
        config, setup, comm, optimizer, events=reporter.events,
        stateful={"guard": guard}, sharded=exchange.is_sharded,
    )  # fmt: skip
    first = checkpoints.resume()
    steps = checkpoints.steps
    reporter.go_on(first, checkpoints.tokens_at(first))
    if first >= steps:
        return _leave(reporter, comm, pulse)

    val_loss = None
    unread: list[Unread] = []
    clock = StepClock(setup.device, pulse)
    for step in range(first, steps):
        clock.start_step()
        checkpoints.begin_step()
        micro_batches = batches.read(step, train.grad_accum_steps)
        clock.mark("data")

        exchange.clear()
        for number, (inputs, targets) in enumerate(micro_batches, start=1):
            last = number == len(micro_batches)
            with exchange.micro_step(last=last):
                with setup.precision.autocast():
                    loss = sum_token_losses(exchange.model(inputs), targets) / tokens_per_step
                exchange.loss += loss.detach()
                clock.mark("forward")
                if last:
                    own_loss = exchange.loss.clone()
                setup.precision.backward(loss * guard.scale)
            clock.mark("backward")
        pulse.enter("exchange")
        exchange.finish()
        clock.mark("exposed_comm")

        rate = learning_rate(step, steps, optim)
        set_learning_rate(optimizer, rate)
        norm = clip_by_global_norm(exchange.gradients, optim.clip_norm, guard.scale, sum_squares)
        takes_update = guard.admits(step + 1, exchange.loss, norm)
        if takes_update:
            exchange.update(optimizer)
        clock.mark("optimizer")

        unread.append(Unread(own_loss, exchange.loss.clone(), norm if takes_update else None))
        done = step + 1
        pulse.step(done)
        saves = checkpoints.end_step(done)
        # A step that is saved is looked at first: a broken state must not be what we go back to.
        if done % train.log_every_steps == 0 or done == steps or saves:
            step_time_s, phases_s = clock.read()
            if train.on_nan == "stop":
                _stop_if_broken(unread, done, comm, checkpoints)
            reporter.step(
                done, steps, loss=unread[-1].loss.item(), lr=rate, grad_norm=norm.item(),
                new_steps=len(unread), step_time_s=step_time_s, phases_s=phases_s,
                loss_scale=guard.loss_scale, skipped_steps=guard.skipped_steps,
            )  # fmt: skip
            last_loss = unread[-1].loss.item()
            unread.clear()
        if done == steps or (train.eval_every_steps and done % train.eval_every_steps == 0):
            share_buffers(model, comm)
            with setup.precision.autocast():
                val_loss = evaluate(model, setup.validation, comm, pulse)
            if val_loss is not None:
                reporter.evaluated(done, val_loss)
            clock.restart()
        if saves:
            pulse.enter("checkpoint")
            share_buffers(model, comm)
            checkpoints.save(done)
        if checkpoints.leaving:
            return _leave(reporter, comm, pulse)
    if comm.rank == 0 and guard.skipped_steps:
        print(f"skipped    the updates of {guard.skipped_steps} steps, alike on all ranks")
    reporter.finished(steps, last_loss, val_loss)
    _leave(reporter, comm, pulse)


class Unread(NamedTuple):
    """What a step left on the device."""

    own_loss: Tensor
    loss: Tensor
    """Of all ranks."""
    norm: Tensor | None
    """Of the gradient; None where the update was left out."""


def evaluate(
    model: nn.Module, validation: ValidationBatches, comm: Communicator,
    pulse: PulseWriter | None = None,
) -> float | None:  # fmt: skip
    """Return the mean loss over the validation windows (nats a token); None if there are none.

    Every rank must call this. Sums are in double precision, so that the split over ranks
    does not show.
    """
    if not validation.sequences:
        return None
    total = torch.zeros(2, dtype=torch.float64)  # summed loss, tokens
    model.eval()
    with torch.inference_mode():
        for inputs, targets in validation:
            if pulse is not None:
                pulse.enter("evaluation")
            loss = sum_token_losses(model(inputs), targets)
            total += torch.tensor([loss.item(), targets.numel()], dtype=torch.float64)
    model.train()
    if pulse is not None:
        pulse.enter("exchange")
    loss_sum, tokens = comm.all_reduce_sum(total, "validation").tolist()
    return loss_sum / tokens


def share_buffers(model: nn.Module, comm: Communicator) -> None:
    """Give every rank rank 0's buffers, such as a batch norm's statistics in a model of one's own.

    Ours has none that change.
    """
    kept = model.state_dict(keep_vars=True)
    for name, buffer in model.named_buffers():
        if name in kept:
            comm.broadcast(buffer.view(-1), f"buffer.{name}")


def _leave(reporter: Reporter, comm: Communicator, pulse: PulseWriter) -> None:
    pulse.enter("leaving")
    reporter.flush()
    pulse.enter("barrier")
    comm.barrier()
    pulse.enter("leaving")


def _stop_if_broken(
    unread: list[Unread], done: int, comm: Communicator, checkpoints: Checkpoints
) -> None:
    """Stop all ranks if a loss or a gradient is not a number.

    The global loss and the global norm show it to each of them.
    """
    remedy = "Lower optim.lr, lengthen optim.warmup_steps, or lower optim.clip_norm."
    for step, (own, total, norm) in enumerate(unread, start=done - len(unread) + 1):
        has_good_gradient = norm is None or math.isfinite(norm.item())
        if math.isfinite(total.item()) and has_good_gradient:
            continue
        last_checkpoint, problem = checkpoints.describe_last(), None
        if not math.isfinite(own.item()):
            problem = TrainingError(
                f"step {step}: the loss of rank {comm.rank} is not finite, got {own.item()}. "
                f"{remedy} {last_checkpoint}"
            )
        raise_together(comm, problem)
        if not has_good_gradient:
            raise TrainingError(
                f"step {step}: the gradient is not finite, though the losses are, got a global "
                f"norm of {norm.item()}. {remedy} {last_checkpoint}"
            )
        raise FaultyHostError(
            f"step {step}: the sum of the ranks' losses is not finite, got {total.item()}, though "
            "each rank's own is. The exchange or the memory of a host is faulty. "
            f"{last_checkpoint}"
        )
