"""Trainings that are disturbed at exact steps, for tests of restarts.

A hook in the ranks' Python (sitecustomize) acts when a rank reads the data of a step, so nothing
here depends on how fast a machine is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import small_training

STEPS = 12
SETTINGS = {
    **small_training.SETTINGS,
    "train.steps": STEPS,
    "optim.warmup_steps": 2,
    "checkpoint.every_steps": 4,
    "checkpoint.keep_last": 9,
    "data.path": "data",
}
# HOOK: [[attempt, rank, finished steps, what], …]; attempt 0 is any.
HOOK = """
import json, os, signal, sys, time
if "hpctrain.train" in sys.orig_argv and "HPCTRAIN_RANK" in os.environ:
    rank, attempt = int(os.environ["HPCTRAIN_RANK"]), int(os.environ["HPCTRAIN_ATTEMPT_NUMBER"])
    acts = {step: what for when, who, step, what in json.loads(os.environ["HOOK"])
            if when in (0, attempt) and who == rank}

    def act(what):
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(os.path.join(os.environ["HOOK_FOLDER"], f"gate-{attempt}-{rank}"), "w").close()
        time.sleep(600)

    if json.loads(os.environ["HOOK"]):
        from hpctrain.train.data import TrainingBatches
        read = TrainingBatches.read
        def read_or_act(self, step, grad_accum_steps):
            if step in acts:
                act(acts[step])
            return read(self, step, grad_accum_steps)
        TrainingBatches.read = read_or_act

        # A checkpoint is complete before the next step begins, however busy the machine is.
        from hpctrain.train.checkpoint import Checkpoints
        save = Checkpoints.save
        def save_at_once(self, done):
            save(self, done)
            if done < self.steps and not self.leaving:
                self._finish_pending()
                self._writer._thread.submit(lambda: None).result()
        Checkpoints.save = save_at_once
"""


def prepare(folder: Path) -> None:
    """Put data and the hook into a folder."""
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    small_training.prepare_data(folder)


def settings(**more: object) -> list[str]:
    """Return the options of such a training; None takes a setting away."""
    known = {**SETTINGS, **more}
    return small_training.as_options({k: v for k, v in known.items() if v is not None})


def hooked(folder: Path, *acts: tuple[int, int, int, str]) -> dict[str, str]:
    """Return variables by which ranks do what they are told at their steps."""
    path = os.pathsep.join([str(folder / "hook"), os.environ.get("PYTHONPATH", "")])
    return {
        "OMP_NUM_THREADS": "1", "PYTHONPATH": path.rstrip(os.pathsep), "HOOK": json.dumps(acts),
        "HOOK_FOLDER": str(folder),
    }  # fmt: skip


# Ranks on other nodes need the hook's variables too.
FORWARD = ("--set", 'launch.forward=["HOOK*"]')


def losses(path: Path) -> dict[int, float]:
    """Return the loss of each step, of a step that was done again the latest."""
    events = map(json.loads, (path / "events.jsonl").read_text().splitlines())
    return {event["step"]: event["loss"] for event in events if event["event"] == "step"}


def events_named(done, name: str) -> list[dict]:
    """Return a run's events of one name."""
    return [event for event in done.events if event["event"] == name]


def weights(path: Path, folder: Path) -> dict[str, list]:
    """Return a run's final weights, by name."""
    from safetensors.torch import load_file

    out = folder / f"{path.parent.parent.name}-{path.name}.safetensors"
    export = [sys.executable, "-m", "hpctrain", "export", str(path), "--out", str(out)]
    subprocess.run(export, check=True, capture_output=True, timeout=60)
    return {name: tensor.tolist() for name, tensor in load_file(out).items()}
