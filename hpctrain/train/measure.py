"""Where a step's time goes, and what the launcher is told about it."""

from __future__ import annotations

import itertools
import math
import os
import socket
import time
from collections.abc import Iterable

import torch

from hpctrain.events import EVENTS_FD_VARIABLE, emit
from hpctrain.train.communicator import Communicator

PHASES = ("data", "forward", "backward", "exposed_comm", "optimizer")
WARMUP_STEPS = 10


class StepClock:
    """Splits the time since the last report into phases.

    On a GPU it records events in the stream and reads them when it reports, so that the
    device is never waited for in between.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []
        self._steps = 0
        self.restart()

    def restart(self) -> None:
        """Forget what is measured so far; call where something other than training took time."""
        if self._on_gpu:
            torch.cuda.synchronize()
        self._marks, self._steps = [], 0
        self._start_s = time.perf_counter()

    def start_step(self) -> None:
        """Call at the start of each step."""
        self._steps += 1
        self._marks.append(("", self._now()))

    def mark(self, phase: str) -> None:
        """Say that what ran since the last call was `phase`."""
        self._marks.append((phase, self._now()))

    def read(self) -> tuple[float, dict[str, float]]:
        """Return the seconds a step took, and of them each phase, on average; then restart."""
        if self._on_gpu:
            torch.cuda.synchronize()
        step_s = (time.perf_counter() - self._start_s) / self._steps
        spent_s = dict.fromkeys(PHASES, 0.0)
        for (_, before), (phase, after) in itertools.pairwise(self._marks):
            if phase:
                gap_s = before.elapsed_time(after) / 1e3 if self._on_gpu else after - before
                spent_s[phase] += gap_s / self._steps
        self.restart()
        return step_s, spent_s

    def _now(self) -> float | torch.cuda.Event:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Reporter:
    """Turns what the loop knows into events, and on rank 0 into a short header."""

    def __init__(self, comm: Communicator, device: torch.device, tokens_per_step: int) -> None:
        self._rank, self._size, self._device = comm.rank, comm.size, str(device)
        self._host = socket.gethostname()
        self._tokens_per_step = tokens_per_step
        self._start_s = time.perf_counter()
        self._all, self._warm = [0, 0.0], [0, 0.0]  # steps, seconds; the latter without warm-up

    def started(self, header: Iterable[tuple[str, str]], **fields: object) -> None:
        """Say what is about to run."""
        if self._rank == 0:
            for name, value in header:
                print(f"{name:<10} {value}", flush=True)
            emit("train_started", tokens_per_step=self._tokens_per_step, size=self._size,
                 device=self._device, **fields)  # fmt: skip

    def step(
        self, step: int, steps: int, *, loss: float, lr: float, grad_norm: float,
        new_steps: int, step_time_s: float, phases_s: dict[str, float], **more: object,
    ) -> None:  # fmt: skip
        """Report `new_steps` steps, the last of which is number `step` (counted from 1).

        Args:
            more: further fields of the step's event.
        """
        if self._rank == 0:
            warm = step - new_steps >= min(WARMUP_STEPS, steps // 2)
            for counted in (self._all, self._warm) if warm else (self._all,):
                counted[0] += new_steps
                counted[1] += new_steps * step_time_s
            emit("step", step=step, steps=steps, loss=loss, lr=lr, grad_norm=grad_norm,
                 tokens=step * self._tokens_per_step,
                 tokens_per_s=self._tokens_per_step / step_time_s, step_time_s=step_time_s,
                 mfu=None, **more)  # fmt: skip
        emit("rank_step", step=step, host=self._host, device=self._device,
             **{f"{phase}_s": seconds for phase, seconds in phases_s.items()})  # fmt: skip

    def evaluated(self, step: int, val_loss: float) -> None:
        """Report a validation loss (nats a token)."""
        if self._rank == 0:
            emit("eval", step=step, val_loss=val_loss, val_perplexity=_exp(val_loss))
            _say(f"step {step}: validation loss {val_loss:.4f}")

    def finished(self, step: int, loss: float, val_loss: float | None) -> None:
        """Report the end: tokens/s without the first steps, which warm up, where there are more."""
        if self._rank != 0:
            return
        timed_steps, timed_s = self._warm if self._warm[0] else self._all
        tokens_per_s = timed_steps * self._tokens_per_step / timed_s
        duration_s = time.perf_counter() - self._start_s
        emit("train_finished", step=step, loss=loss, val_loss=val_loss,
             tokens_per_s=tokens_per_s, duration_s=duration_s)  # fmt: skip
        validation = "" if val_loss is None else f", validation loss {val_loss:.4f}"
        speed = f"{tokens_per_s:,.0f} tokens/s"
        _say(f"finished   {step} steps, loss {loss:.4f}{validation}, {speed}")


def _say(line: str) -> None:
    """Print where no launcher listens; one that does shows the events in its own way."""
    if EVENTS_FD_VARIABLE not in os.environ:
        print(line, flush=True)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
