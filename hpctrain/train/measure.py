"""Where a step's time goes, and what the launcher is told about it."""

from __future__ import annotations

import itertools
import math
import os
import socket
import time
from collections.abc import Iterable

import torch

from hpctrain.event_queue import EventQueue
from hpctrain.events import EVENTS_FD_VARIABLE
from hpctrain.gpu_peaks import find_peak, peak_flops
from hpctrain.pulse import PulseWriter
from hpctrain.train.communicator import Communicator
from hpctrain.train.flops import utilization

PHASES = ("data", "forward", "backward", "exposed_comm", "optimizer")
WARMUP_STEPS = 10
# What a rank is at once a phase is over; after backward it is another micro-batch, or the exchange.
_NEXT = {"data": "forward", "forward": "backward", "backward": "forward",
         "exposed_comm": "optimizer", "optimizer": "data"}  # fmt: skip


class StepClock:
    """Splits the time since the last report into phases.

    On a GPU it records events in the stream and reads them when it reports, so that the
    device is never waited for in between.
    """

    def __init__(self, device: torch.device, pulse: PulseWriter | None = None) -> None:
        """
        Args:
            pulse: is told each phase as it begins.
        """
        self._pulse = pulse or PulseWriter()
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
        self._pulse.enter("data")
        self._marks.append(("", self._now()))

    def mark(self, phase: str) -> None:
        """Say that what ran since the last call was `phase`."""
        self._pulse.enter(_NEXT[phase])
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

    def __init__(
        self, comm: Communicator, device: torch.device, tokens_per_step: int, *,
        flops_per_token: float | None = None, precision: str = "fp32",
    ) -> None:  # fmt: skip
        """
        Args:
            tokens_per_step: over all ranks.
            flops_per_token: see :func:`hpctrain.train.flops.flops_per_token`.
            precision: as the configuration names it; chooses the device's peak.
        """
        self._rank, self._size, self._device = comm.rank, comm.size, device
        self._flops_per_token = flops_per_token
        self._device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self._peak_flops = peak_flops(self._device_name, precision)
        self.events = EventQueue()
        """For whoever else has something to report: one queue keeps events in order."""
        self._host = socket.gethostname()
        self._tokens_per_step, self._tokens_before = tokens_per_step, 0
        self._start_s = time.perf_counter()
        self._all, self._warm = [0, 0.0], [0, 0.0]  # steps, seconds; the latter without warm-up

    def started(self, header: Iterable[tuple[str, str]], **fields: object) -> None:
        """Say what is about to run."""
        if self._rank == 0:
            for name, value in header:
                print(f"{name:<10} {value}", flush=True)
            peak = find_peak(self._device_name)
            self.events.emit(
                "train_started", tokens_per_step=self._tokens_per_step, size=self._size,
                device=str(self._device), device_name=self._device_name or None,
                flops_per_token=self._flops_per_token, peak_flops=self._peak_flops,
                peak_disputed=peak.disputed if peak else None, **fields,
            )  # fmt: skip

    def go_on(self, step: int, tokens: int) -> None:
        """Count from a run's `step` on, until which it has seen `tokens`."""
        self._tokens_before = tokens - step * self._tokens_per_step

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
            tokens_per_s = self._tokens_per_step / step_time_s
            self.events.emit(
                "step", step=step, steps=steps, loss=loss, perplexity=_exp(loss), lr=lr,
                grad_norm=grad_norm, tokens=self._tokens_before + step * self._tokens_per_step,
                tokens_per_s=tokens_per_s, step_time_s=step_time_s,
                mfu=utilization(
                    tokens_per_s, self._flops_per_token, self._peak_flops, self._size
                ),
                **more,
            )  # fmt: skip
        self.events.emit(
            "rank_step", step=step, host=self._host, device=str(self._device),
            **{f"{phase}_s": seconds for phase, seconds in phases_s.items()},
            device_peak_bytes=device_peak_bytes(self._device), host_rss_bytes=host_rss_bytes(),
        )  # fmt: skip

    def evaluated(self, step: int, val_loss: float) -> None:
        """Report a validation loss (nats a token)."""
        if self._rank == 0:
            self.events.emit("eval", step=step, val_loss=val_loss, val_perplexity=_exp(val_loss))
            _say(f"step {step}: validation loss {val_loss:.4f}")

    def flush(self) -> None:
        """Return when the launcher has been told all, or takes no more."""
        self.events.flush()

    def finished(self, step: int, loss: float, val_loss: float | None) -> None:
        """Report the end: tokens/s without the first steps, which warm up, where there are more."""
        if self._rank != 0:
            return
        timed_steps, timed_s = self._warm if self._warm[0] else self._all
        tokens_per_s = timed_steps * self._tokens_per_step / timed_s
        duration_s = time.perf_counter() - self._start_s
        self.events.emit(
            "train_finished", step=step, loss=loss, val_loss=val_loss, duration_s=duration_s,
            tokens_per_s=tokens_per_s,
            mfu=utilization(tokens_per_s, self._flops_per_token, self._peak_flops, self._size),
        )  # fmt: skip
        validation = "" if val_loss is None else f", validation loss {val_loss:.4f}"
        speed = f"{tokens_per_s:,.0f} tokens/s"
        _say(f"finished   {step} steps, loss {loss:.4f}{validation}, {speed}")


def device_peak_bytes(device: torch.device) -> int | None:
    """Return the most memory that tensors on a GPU have taken so far; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def host_rss_bytes() -> int | None:
    """Return the main memory that this process holds now; None where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _say(line: str) -> None:
    """Print where no launcher listens; one that does shows the events in its own way."""
    if EVENTS_FD_VARIABLE not in os.environ:
        print(line, flush=True)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
