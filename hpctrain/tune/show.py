"""What a person sees of a tuning: the plan, how far it is, and what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from hpctrain.tune.arms import arm_name
from hpctrain.tune.halving import count_trials
from hpctrain.tune.request import Tuning
from hpctrain.tune.search import Ask, Measured, Search
from hpctrain.tune.verdict import Verdict

PLAIN_INTERVAL_S = 5.0


def plan_as_json(tuning: Tuning) -> dict[str, Any]:
    """Return what would be tried, and what not, as JSON-ready values."""
    return {
        "np": tuning.np,
        "budget_s": tuning.limits.budget_s,
        "steps_a_trial": tuning.limits.steps,
        "most_steps_a_candidate": tuning.limits.most_steps,
        "most_trials": count_trials(tuning.values),
        "machine": dict(tuning.machine),
        "knobs": [
            {"name": k.name, "now": k.base, "values": [v.label for v in k.values],
             "lossy": k.lossy, "reason": k.reason, "source": k.source}
            for k in tuning.knobs
        ],
        "left_out": [{"name": each.name, "why": each.why} for each in tuning.left_out],
    }  # fmt: skip


def print_plan(tuning: Tuning, *, err: bool) -> None:
    """Say what is tried and why, and how long it may take."""
    for knob in tuning.knobs:
        tried = ", ".join(value.label for value in knob.values)
        click.echo(f"{knob.name}: now {knob.base}; tried: {tried}", err=err)
        click.echo(f"    {knob.reason} ({knob.source})", err=err)
    for each in tuning.left_out:
        click.echo(f"not tried: {each.name}: {each.why}", err=err)
    most = count_trials(tuning.values)
    limits = tuning.limits
    click.echo(
        f"at most {most} trials of {limits.steps} steps, {limits.most_steps} steps a candidate; "
        f"at most {duration(limits.budget_s)} (--budget)",
        err=err,
    )


class TuneConsole:
    """Progress on standard error: a bar where somebody watches, else a line now and then."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning
        self._bar: Any = None
        self._task: Any = None
        self._done = 0
        self._kept = 0
        self._rung = ""
        self._told_time = False
        self._next_line_s = 0.0

    def trial(self, ask: Ask, search: Search, *, kept: bool) -> None:
        self._kept += kept
        self._done += 1
        if kept:
            return
        if self._kept and self._kept == self._done - 1:
            self._say(f"{self._kept} trials are there already")
        left_s = search.trial_s * ask.left if search.walls_s else None
        if left_s is not None and not self._told_time:
            self._told_time = True
            self._say(f"a trial takes {search.trial_s:.1f} s: about {duration(left_s)} to go")
        self._show(ask, left_s)

    def result(self, ask: Ask, measured: Measured, problem: str | None) -> None:
        if problem is not None:
            self._say(f"{arm_name(ask.arm)} fails, and is left out: {problem.splitlines()[-1]}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, ask: Ask, left_s: float | None) -> None:
        eta = f"eta {duration(left_s)}" if left_s is not None else "eta ?"
        text = f"{ask.rung}: {arm_name(ask.arm)}"
        total = self._done - 1 + ask.left
        if sys.stderr.isatty():
            if self._bar is None:
                from rich.console import Console
                from rich.progress import BarColumn, Progress, TextColumn

                self._bar = Progress(
                    TextColumn("trial {task.completed}/{task.total}"), BarColumn(20),
                    TextColumn("{task.fields[eta]}  {task.description}", markup=False),
                    console=Console(stderr=True, highlight=False), transient=True,
                )  # fmt: skip
                self._task = self._bar.add_task(text, total=total, eta=eta)
                self._bar.start()
            self._bar.update(
                self._task, completed=self._done - 1, total=total, description=text, eta=eta
            )
        elif ask.rung != self._rung or time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + PLAIN_INTERVAL_S
            self._say(f"trial {self._done}/{total}  {eta}  {text}")
        self._rung = ask.rung

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, soft_wrap=True)
        else:
            click.echo(text, err=True)


def print_verdict(verdict: Verdict, tuning: Tuning, search: Search, paths: Sequence[str]) -> None:
    """Say what is taken, what is not, and why."""
    for choice in sorted(verdict.choices, key=lambda choice: not choice.taken):
        gain = f"{choice.gain} times as fast" if choice.gain else "not measured"
        mark = "taken" if choice.taken else "not taken"
        click.echo(f"{choice.knob}={choice.value}: {gain}; {mark}: {choice.why}")
    if search.unmeasured:
        names = ", ".join(map(arm_name, search.unmeasured))
        click.echo(f"no time for: {names}. Give a longer --budget.")
    if search.cut_short:
        click.echo("the budget ended before the last rung did: fewer pairs than planned")
    if verdict.arm and verdict.gain:
        click.echo(f"together: {verdict.gain} times as fast as before")
    else:
        click.echo("nothing gained more than the spread: the settings stay as they are")
    trials, steps = len(search.walls_s), max(search.steps.values(), default=0)
    click.echo(f"{trials} trials, at most {steps} steps a candidate, {duration(search.spent_s)}")
    for path in paths:
        click.echo(path)


def duration(seconds: float) -> str:
    """Return a duration as people read it.

    >>> duration(42.4), duration(600), duration(5400)
    ('42 s', '10 min', '1 h 30 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
