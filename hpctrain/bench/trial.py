"""One short run that is to be measured: start it, watch it, give back its run directory.

A trial is an ordinary ``hpctrain run`` in a process of its own, so what is measured is what a
user gets, and a trial that goes wrong takes nothing with it. What it measured is read from its
run directory (:mod:`hpctrain.bench.samples`).
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hpctrain.config import Config
from hpctrain.errors import BenchError
from hpctrain.executor import Command, LocalExecutor
from hpctrain.hosts import Host, render_hostfile
from hpctrain.launch.prepare import SAFE_PATH
from hpctrain.rundir import read_events, remove_run

LOOK_EVERY_S = 0.2
STOP_LIMIT_S = 20.0  # the launcher gives ranks 5 s, and then insists
LAST_LINES = 12
# What a measured training leaves out: files, validation, and steps that nobody hears of.
QUIET_TRAINER = (
    "checkpoint.save=off",
    "checkpoint.resume=none",
    "train.eval_every_steps=0",
    "train.eval_sequences=1",
    "train.log_every_steps=1",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What to run.

    Args:
        name: the run's name in `runs_dir`.
        program: what each rank runs; empty for the trainer, which then gets QUIET_TRAINER.
        hosts: with their slots; None for this machine.
        ssh_config: what reaches them, as a cluster's directory has it.
        overrides: ``section.key=value``, as ``--set`` takes them.
        timeout_s: a trial that takes longer is stopped and is an error.
    """

    name: str
    runs_dir: Path
    np: int
    program: tuple[str, ...] = ()
    hosts: tuple[Host, ...] | None = None
    ssh_config: Path | None = None
    config_name: str | None = None
    overrides: tuple[str, ...] = ()
    oversubscribe: bool = False
    timeout_s: float = 600.0

    @property
    def run_path(self) -> Path:
        return self.runs_dir / self.name

    @property
    def hostfile(self) -> Path:
        """Where :func:`run_trial` writes the hosts; beside it ``ssh_config`` is found."""
        return self.runs_dir / "hosts" / self.name / "hostfile"


def config_for_trial(config: Config) -> Config:
    """Return a run's configuration for a short launch of the same ranks.

    Hosts and ranks are the trial's own; what is about hosts that fail, and about proving first,
    would only be in its way.
    """
    launch = replace(
        config.launch, np=None, hosts=None, spares=0, min_np=None, max_restarts=0,
        require_transport="none",
    )  # fmt: skip
    return replace(config, launch=launch)


def plan_trial(trial: Trial) -> Command:
    """Return the command line that runs a trial, as a person could type it."""
    argv = [sys.executable, *SAFE_PATH, "-m", "hpctrain", "run", "--np", str(trial.np)]
    argv += ["--name", trial.name, "--runs-dir", str(trial.runs_dir)]
    if trial.hosts is not None:
        argv += ["--hosts", str(trial.hostfile)]
    if trial.config_name is not None:
        argv += ["--config", trial.config_name]
    quiet = () if trial.program else QUIET_TRAINER
    for override in (*quiet, *trial.overrides):
        argv += ["--set", override]
    if trial.oversubscribe:
        argv.append("--oversubscribe")
    return Command((*argv, "--", *trial.program) if trial.program else tuple(argv))


def run_trial(
    trial: Trial,
    on_step: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> Path:
    """Run a trial to its end and return its run directory.

    What an earlier, broken try of the same name left is removed first.

    Args:
        on_step: called with the number of finished steps, where the program reports them.
        stop: what ends it early, for trials that run in threads, which Ctrl-C does not reach.

    Raises:
        BenchError: it failed, took too long or was stopped; the message has its last words.
    """
    _make_room(trial)
    output = trial.runs_dir / f"{trial.name}.out"
    with open(output, "wb") as file:
        process = LocalExecutor().start(
            plan_trial(trial), stdout=file.fileno(), stderr=subprocess.STDOUT,
            parent_death_signal=signal.SIGTERM,
        )  # fmt: skip
    try:
        code = _watch(process, trial, on_step, stop or threading.Event())
    except BaseException:
        _stop(process)
        raise
    if code is None:
        raise BenchError(
            f"{trial.run_path}: the run was stopped, it took more than {trial.timeout_s:g} s; "
            f"expected less. Its output: {output}"
        )
    if code != 0:
        last = output.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
        raise BenchError(
            "\n  ".join([f"{trial.run_path}: the run failed, got exit code {code}; expected 0:",
                         *last])
        )  # fmt: skip
    return trial.run_path


def _make_room(trial: Trial) -> None:
    trial.runs_dir.mkdir(parents=True, exist_ok=True)
    if trial.run_path.exists():
        remove_run(trial.run_path)
    if trial.hosts is None:
        return
    trial.hostfile.parent.mkdir(parents=True, exist_ok=True)
    trial.hostfile.write_text(render_hostfile(trial.hosts), encoding="utf-8")
    link = trial.hostfile.with_name("ssh_config")
    link.unlink(missing_ok=True)
    if trial.ssh_config is not None:
        link.symlink_to(trial.ssh_config.resolve())


def _watch(
    process: subprocess.Popen[bytes], trial: Trial, on_step: Callable[[int], None] | None,
    stop: threading.Event,
) -> int | None:  # fmt: skip
    """Return the exit code; None where the time ran out, and the trial was stopped."""
    end_by_s = time.monotonic() + trial.timeout_s
    told = 0
    while (code := process.poll()) is None:
        if time.monotonic() > end_by_s or stop.is_set():
            _stop(process)
            return None
        if on_step is not None and (step := _newest_step(trial.run_path)) > told:
            told = step
            on_step(step)
        time.sleep(LOOK_EVERY_S)
    return code


def _newest_step(run_path: Path) -> int:
    steps = (event["step"] for event in read_events(run_path) if event.get("event") == "step")
    return max((step for step in steps if isinstance(step, int)), default=0)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
