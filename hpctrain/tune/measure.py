"""Carry out a search: every question becomes a short run of the trainer, every answer is kept."""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import time
import zlib
from typing import Any, Protocol

from hpctrain.bench.samples import read_sample
from hpctrain.bench.trial import Trial, run_trial
from hpctrain.errors import BenchError
from hpctrain.tune.arms import DEFAULT, arm_name
from hpctrain.tune.halving import search_arms
from hpctrain.tune.request import Tuning, settings_of
from hpctrain.tune.search import WARMUP_STEPS, Ask, Measured, Search
from hpctrain.tune.store import TuneStore
from hpctrain.tune.tuned_file import render_tables

FIRST_TIMEOUT_S = 600.0
LEAST_TIMEOUT_S = 60.0
PATIENCE = 8  # a trial that takes so many times as long as others is hopeless


class Console(Protocol):
    """Who is told what happens."""

    def trial(self, ask: Ask, search: Search, *, kept: bool) -> None:
        """A trial begins, or is known from an earlier process."""

    def result(self, ask: Ask, measured: Measured, problem: str | None) -> None:
        """It has ended."""


def run_search(tuning: Tuning, store: TuneStore, console: Console) -> Search:
    """Measure until the search has ended; what the store holds already is not measured again.

    Raises:
        BenchError: the default configuration itself does not run.
    """
    write_tuning(tuning, store)
    search = Search(tuning.limits)
    trials = search_arms(tuning.values, search, tuning.asked.seed, tuning.not_chosen)
    try:
        ask = next(trials)
        while True:
            known = store.find(ask)
            console.trial(ask, search, kept=known is not None)
            ask = trials.send(known or measure_arm(tuning, store, ask, _timeout_s(search), console))
    except StopIteration:
        return search


def write_tuning(tuning: Tuning, store: TuneStore) -> None:
    """Write what the trials read, and what a later process goes on from."""
    store.write("tune.json", json.dumps(tuning.identity, indent=1) + "\n")
    store.write("base.toml", render_tables(tuning.base))
    store.write("trial.toml", tuning.trial_config)


def plan_arm_trial(tuning: Tuning, store: TuneStore, ask: Ask, timeout_s: float) -> Trial:
    """Return the run that measures a candidate."""
    settings = {"train.steps": tuning.limits.steps, **settings_of(tuning.knobs, ask.arm)}
    name = arm_name(ask.arm)
    slug = re.sub(r"[^A-Za-z0-9]+", "-", name)[:60].strip("-")
    return Trial(
        name=f"{ask.round_number:02d}-{slug}-{zlib.crc32(name.encode()):08x}",
        runs_dir=store.runs_dir,
        np=tuning.np,
        hosts=tuning.hosts,
        config_name=str(store.folder / "trial.toml"),
        # A JSON value is TOML as well.
        overrides=tuple(f"{key}={json.dumps(value)}" for key, value in settings.items()),
        oversubscribe=tuning.asked.oversubscribe,
        timeout_s=timeout_s,
    )


def measure_arm(
    tuning: Tuning, store: TuneStore, ask: Ask, timeout_s: float, console: Console
) -> Measured:
    """Run one trial, and keep what it gave.

    Raises:
        BenchError: the default configuration failed; what another one does is an answer.
    """
    trial = plan_arm_trial(tuning, store, ask, timeout_s)
    more: dict[str, Any] = {"run": f"runs/{trial.name}", "load_before": os.getloadavg()[0]}
    problem = None
    start_s = time.monotonic()
    try:
        sample = read_sample(run_trial(trial), WARMUP_STEPS)
        step_s = statistics.median(sample.step_time_s)
        if not (math.isfinite(step_s) and step_s > 0):
            raise BenchError(f"{trial.run_path}: no time of a step, got {step_s}; expected over 0.")
        more["sample"] = sample.as_json()
    except BenchError as failed:
        if ask.arm == DEFAULT:
            raise
        step_s, problem = None, "\n".join(failed.messages)
        more["problem"] = problem
    measured = Measured(step_s, time.monotonic() - start_s)
    store.add(ask, measured, time_s=time.time(), **more)
    console.result(ask, measured, problem)
    return measured


def _timeout_s(search: Search) -> float:
    if not search.walls_s:
        return FIRST_TIMEOUT_S
    return max(LEAST_TIMEOUT_S, PATIENCE * statistics.median(search.walls_s))
