"""Does the training itself run, save and go on? Five steps of it, and the last two again.

The first launch takes five steps without a break and saves after the third. The second goes on from
that checkpoint: its losses must be those that the first one had there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpctrain.bench.samples import read_sample
from hpctrain.bench.trial import Trial, run_trial
from hpctrain.config import Config
from hpctrain.errors import HpctrainError
from hpctrain.preflight.check import FULL, Check
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.full.place import Place, explain_failure
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict
from hpctrain.rundir import read_events

CODE = "rehearsal"
STEPS, SAVED_STEP = 5, 3
TIMEOUT_S = 600.0  # of each launch
MOST_EVAL_SEQUENCES = 64
# Where it is not bit for bit: kernels of GPUs add up in any order, and 16 bits round coarsely.
TOLERANCE = 1e-3
WAITING_PART = 0.5  # of a step
BROKEN = "the run's own way: hpctrain run --set train.steps=5 with the same options"


def run_rehearsal(place: Place) -> dict[str, Any]:
    """Train, save, go on; return the losses of both launches, or why there are none."""
    if any(task.program for task in place.request.tasks.values()):
        return {"skip": "a COMMAND of your own is run only by hpctrain run: how it saves and "
                        "goes on is not known"}  # fmt: skip
    if not place.is_training:
        return {"skip": "no training was named: --config FILE.toml, or --set"}
    whole = run_part(place, "rehearsal", plan_config(place.config))
    if "error" in whole:
        return whole
    saved = Path(whole["path"]) / "checkpoints" / f"step-{SAVED_STEP:08d}"
    again = run_part(place, "resumed", plan_config(place.config, saved))
    if "error" in again:
        return {"error": f"going on from its checkpoint: {again['error']}"}
    return {**whole, "resumed": again["losses"]}


def plan_config(config: Config, resume: Path | None = None) -> Config:
    """Return the true configuration, cut to STEPS steps.

    Args:
        resume: the checkpoint to go on from; None for the launch that makes it.
    """
    sequences = min(config.train.eval_sequences, MOST_EVAL_SEQUENCES)
    train = replace(config.train, steps=STEPS, tokens=None, eval_sequences=sequences,
                    eval_every_steps=0, log_every_steps=1)  # fmt: skip
    checkpoint = replace(
        config.checkpoint, save="off" if resume else "on", every_steps=SAVED_STEP, keep_last=2,
        resume=str(resume) if resume else "none",
    )  # fmt: skip
    # A scheduler's patience with a save is for the real run: Ctrl-C ends this one.
    launch = replace(config.launch, save_timeout_s=min(config.launch.save_timeout_s, 5.0))
    return replace(config, train=train, checkpoint=checkpoint, launch=launch)


def plan_part(place: Place, name: str, config: Config) -> Trial:
    """Return the launch of one part: what a trial leaves out for speed is what is tried here."""
    names = ("save", "resume")
    overrides = [f"checkpoint.{name}={getattr(config.checkpoint, name)}" for name in names]
    overrides.append(f"train.eval_sequences={config.train.eval_sequences}")
    trial = Trial(name=name, runs_dir=place.folder, np=place.np, overrides=tuple(overrides),
                  timeout_s=TIMEOUT_S)  # fmt: skip
    return place.put(trial, config)


def run_part(place: Place, name: str, config: Config) -> dict[str, Any]:
    """Run one launch; return its losses by step and what it took, or {"error": why}."""
    try:
        path = run_trial(plan_part(place, name, config), place.on_step)
        sample = read_sample(path, warmup_steps=1)
    except HpctrainError as problem:
        return {"error": explain_failure(problem, place.folder)}
    events = list(read_events(path))
    steps = [event for event in events if event.get("event") == "step"]
    saved = [event["bytes"] for event in events if event.get("event") == "checkpoint"]
    waited = [statistics.median(rank.exposed_comm_s) for rank in sample.ranks]
    peaks = [rank.peak_bytes for rank in sample.ranks if rank.peak_bytes is not None]
    return {
        "path": str(path), "np": sample.np, "precision": sample.precision,
        "device": sample.ranks[0].device if sample.ranks else "unknown",
        "losses": {str(event["step"]): event.get("loss") for event in steps},
        "step_time_s": sorted(sample.step_time_s)[len(sample.step_time_s) // 2],
        "exposed_comm_s": min(waited, default=0.0), "params": sample.params,
        "saved_bytes": saved[0] if saved else None, "peak_bytes": max(peaks, default=None),
    }  # fmt: skip


def judge_rehearsal(fleet: Fleet) -> Iterator[Verdict]:
    """Judge that it ran, and that what it went on with is what it saved."""
    found = fleet.facts.get(CODE, {"skip": "not run"})
    if "skip" in found:
        yield Verdict(CODE, SKIP, found["skip"])
    elif "error" in found:
        yield Verdict(CODE, FAIL, found["error"], BROKEN, f"{STEPS} steps")
    else:
        yield from _judge_waiting(found)
        yield _judge_losses(found)


def _judge_losses(found: dict[str, Any]) -> Verdict:
    exact = found["precision"] == "fp32" and found["device"] == "cpu"
    before, after = found["losses"], found["resumed"]
    wanted = [str(step) for step in range(SAVED_STEP + 1, STEPS + 1)]
    missing = [step for step in wanted if not (_is_loss(before, step) and _is_loss(after, step))]
    if missing:
        text = f"no loss of step {', '.join(missing)}"
        return Verdict(CODE, FAIL, text, BROKEN, f"{STEPS} steps with a finite loss")
    worst = max(abs(after[step] - before[step]) / max(abs(before[step]), 1e-12) for step in wanted)
    same = "bit for bit" if worst == 0 else f"to within {worst:.1g}"
    limit = "the same losses bit for bit" if exact else f"the same losses to within {TOLERANCE:g}"
    if worst > (0.0 if exact else TOLERANCE):
        pairs = "; ".join(f"step {s}: {after[s]:.9g}, before {before[s]:.9g}" for s in wanted)
        text = f"the loss after resuming is another one: {pairs}"
        return Verdict(CODE, FAIL, text, "see docs/checkpoints.md, Resuming", limit)
    ranks = "1 rank" if found["np"] == 1 else f"{found['np']} ranks"
    size = "" if not found["saved_bytes"] else f", {found['saved_bytes'] / 1e9:.3g} GB saved"
    memory = "" if not found["peak_bytes"] else f", {found['peak_bytes'] / 1e9:.3g} GB of a GPU"
    return Verdict(
        CODE, PASS,
        f"{STEPS} steps on {ranks} ({found['device']}, {found['precision']}), "
        f"{found['step_time_s']:.3g} s each{size}{memory}; resumed at step {SAVED_STEP} its losses "
        f"are the same {same}",
    )  # fmt: skip


def _judge_waiting(found: dict[str, Any]) -> Iterator[Verdict]:
    """Warn where even the rank that waits least spends most of a step on the exchange."""
    step_s, waited_s, n = found["step_time_s"], found["exposed_comm_s"], found["np"]
    if n < 2 or waited_s < WAITING_PART * step_s:
        return
    text = f"{waited_s / step_s:.0%} of a step waits for the exchange of gradients"
    if found["params"]:
        # A ring sends 2 (n - 1)/n of a message each way.
        moved_gb = 4 * found["params"] * 2 * (n - 1) / n / 1e9
        spared_s = max(step_s - waited_s, 1e-9)
        text += f": {moved_gb:.2g} GB each way, {moved_gb / spared_s:.2g} GB/s to hide it"
    fix = "see pairs for a slow link; train.grad_accum_steps, comm.compression; hpctrain bench"
    yield Verdict(CODE, WARN, text, fix, f"less than {WAITING_PART:.0%}")


def _is_loss(losses: dict[str, Any], step: str) -> bool:
    value = losses.get(step)
    return isinstance(value, (int, float)) and math.isfinite(value)


REHEARSAL = Check(CODE, judge_rehearsal, (), FULL)
