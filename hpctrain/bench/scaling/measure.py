"""Carry a measurement out: calibrate, say how long it takes, measure what is left, store it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hpctrain.bench.environment import BUSY_LOAD, probe_load
from hpctrain.bench.scaling.allreduces import ALLREDUCE_BUDGET_S, measure_allreduce
from hpctrain.bench.scaling.cases import Case, StoredSample, read_allreduces
from hpctrain.bench.scaling.finished import read_trial, render_rate
from hpctrain.bench.scaling.plan import allreduce_placements, plan_order
from hpctrain.bench.scaling.progress import BenchConsole
from hpctrain.bench.scaling.request import RUNS, Bench
from hpctrain.bench.scaling.store import BenchFolder, commit_warning, open_bench
from hpctrain.bench.scaling.timing import (
    Calibration,
    calibrate,
    calibrate_from_stored,
    cost_usd,
    estimate_trial_s,
    remaining_s,
    render_duration,
)
from hpctrain.bench.scaling.trials import (
    calibration_cases,
    plan_calibration_trial,
    plan_measured_trial,
)
from hpctrain.bench.trial import Trial, run_trial
from hpctrain.errors import BenchError, HpctrainError, RunDirectoryError
from hpctrain.rundir import check_removable

END_OF_RUN_S = 30.0  # that a killed bench's last run may take to end its ranks


def run_bench(bench: Bench, console: BenchConsole) -> list[str]:
    """Measure what is not measured yet.

    Returns:
        Which all-reduces failed, and how: a report can do without them.

    Raises:
        PlanError: the folder holds another measurement.
        BenchError: a trial failed; what was measured stays.
    """
    with open_bench(bench.folder, bench.plan, bench.config) as folder:
        for warning in bench.warnings:
            console.warn(warning)
        if bench.remeasure:
            folder.drop(bench.remeasure)
        if folder.went_on and (warning := commit_warning(folder.plan, bench.plan)):
            console.warn(warning)
        return Measurement(bench, folder, console).run()


class Measurement:
    """One measurement under way."""

    def __init__(self, bench: Bench, folder: BenchFolder, console: BenchConsole) -> None:
        self.bench, self.folder, self.console = bench, folder, console
        self.load = probe_load()  # before our own
        plan = folder.plan
        self.trials = list(plan_order(plan.cases, plan.repeats, folder.samples))
        self.allreduces = dict(allreduce_placements(plan.cases)) if bench.allreduce else {}
        for placement in read_allreduces(folder.path):
            self.allreduces.pop(placement, None)
        self.left = [case.key for case, _ in self.trials] + list(self.allreduces)
        self.walls_s: dict[str, list[float]] = {}
        for sample in folder.samples:
            self.walls_s.setdefault(sample.case, []).append(sample.wall_s)
        self.estimates_s: dict[str, float] = {}
        self.calibrating_s = 0.0

    def run(self) -> list[str]:
        """Calibrate, announce, measure; return what is wrong with all-reduces."""
        if not self.left:
            self.console.say(f"{self.folder.path}: all is measured already")
            return []
        self._announce_calibration()
        self._estimate(self._calibrations_of_stored() or self._calibrate())
        self._announce()
        with self.console.bar(len(self.left), self._remaining_s):
            for case, repeat in self.trials:
                self._measure(case, repeat)
            return [
                problem
                for placement, case in self.allreduces.items()
                for problem in self._measure_allreduce(placement, case)
            ]

    def _calibrations_of_stored(self) -> list[Calibration]:
        """Return what finished trials say: a bench that goes on throws no further run away."""
        found = {}
        cases = {case.key: case for case in self.folder.plan.cases}
        for stored in self.folder.samples:
            if (case := cases.get(stored.case)) is None:
                continue  # the report names it
            steps = () if self.bench.program else stored.sample.step_time_s
            found[case.np] = calibrate_from_stored(
                case.np, stored.wall_s, steps, self.folder.plan.warmup_steps
            )
        sizes = sorted(found)
        return [found[np] for np in dict.fromkeys((*sizes[:1], *sizes[-1:]))]

    def _announce_calibration(self) -> None:
        """Say what calibrating costs while it can still be stopped: nobody knows how long yet."""
        plan = self.folder.plan
        if self.folder.samples or not self.bench.program:
            return
        runs = _count(len(calibration_cases(plan.cases)), "whole run")
        price = plan.usd_per_hour
        cost = f", at {price['value']:.2f} USD an hour ({price['what']})" if price else ""
        self.console.say(
            f"calibrating takes {runs} of COMMAND, thrown away{cost}; how long "
            "everything takes is known then"
        )

    def _calibrate(self) -> list[Calibration]:
        """Run short trials; they also bring files into memory, and are thrown away."""
        found = []
        for case in calibration_cases(self.folder.plan.cases):
            trial = plan_calibration_trial(self.bench, case)
            what = "a run" if self.bench.program else "a short trial"
            text = f"calibrating: {what} of np {case.np} on {_count(case.nodes, 'node')}"
            with self.console.working(text):
                wall_s = self._run(trial)
            self.calibrating_s += wall_s
            steps: tuple[float, ...] = ()
            if self.bench.program:  # is there anything to read at all?
                stored = read_trial(self.bench, case, 0, trial.run_path, 0.0, wall_s)
            else:
                short = replace(self.bench, plan=replace(self.folder.plan, warmup_steps=0))
                stored = read_trial(short, case, 0, trial.run_path, 0.0, wall_s)
                steps = stored.sample.step_time_s
            self._refuse_implausible(stored)
            found.append(calibrate(case.np, wall_s, steps))
        return found

    def _refuse_implausible(self, stored: StoredSample) -> None:
        """Hold a trial against the report's gate while it can still be measured again.

        Raises:
            BenchError: what cannot be; the trial is not kept.
        """
        from hpctrain.bench.report.gate import check_trials

        try:
            check_trials(self.folder.path, self.folder.plan, [stored])
        except BenchError as refused:
            raise BenchError(
                *refused.messages,
                "this trial was not kept: once its cause is found, the same command with --out "
                f"{self.folder.path} measures it again.",
            ) from refused

    def _estimate(self, calibrations: Sequence[Calibration]) -> None:
        plan = self.folder.plan
        steps = plan.warmup_steps + (plan.timed_steps or 0)
        for case in plan.cases:
            self.estimates_s[case.key] = estimate_trial_s(case.np, steps, calibrations)
        for placement, case in self.allreduces.items():
            start_s = estimate_trial_s(case.np, 0, calibrations)
            self.estimates_s[placement] = ALLREDUCE_BUDGET_S + (
                0.0 if self.bench.program else start_s
            )

    def _announce(self) -> None:
        """Say how long it takes, and what it costs."""
        plan, console = self.folder.plan, self.console
        if self.folder.went_on:
            done = _count(len(self.folder.samples), "trial")
            console.say(f"{self.folder.path}: goes on after {done}")
        for note in self.bench.notes:
            console.say(note)
        if self.load > BUSY_LOAD:
            console.warn(
                f"this machine is busy, load {self.load:.2f}: expect spread, repeat when quiet"
            )
        total_s = self._remaining_s()
        each = [render_duration(self.estimates_s[case.key]) for case in plan.cases]
        span = each[0] if each[0] == each[-1] else f"{each[0]} to {each[-1]}"
        words = [f"{_count(len(self.trials), 'trial')} of {_count(len(each), 'case')}, {span} each"]
        words += [_count(len(self.allreduces), "all-reduce sweep")] if self.allreduces else []
        console.say(f"{', '.join(words)}: about {render_duration(total_s)} in all")
        if self.calibrating_s:
            console.say(f"calibrating took {render_duration(self.calibrating_s)} before that")
        if plan.usd_per_hour is not None:
            price = plan.usd_per_hour
            usd = cost_usd(total_s + self.calibrating_s, price["value"])
            and_that = ", calibrating included" if self.calibrating_s else ""
            console.say(
                f"costs about {usd:.2f} USD{and_that}: {price['value']:.2f} an "
                f"hour ({price['what']}, as of {price['as_of']}), as long as the cluster runs"
            )

    def _measure(self, case: Case, repeat: int) -> None:
        trial = plan_measured_trial(self.bench, case, repeat)
        self.console.begin(f"{case.key} repeat {repeat + 1}")
        load_before = probe_load()
        wall_s = self._run(trial)
        stored = read_trial(self.bench, case, repeat, trial.run_path, load_before, wall_s)
        self._refuse_implausible(stored)
        self.folder.append(stored)
        self.left.remove(case.key)
        self.walls_s.setdefault(case.key, []).append(wall_s)
        self.console.done(render_rate(stored))

    def _measure_allreduce(self, placement: str, case: Case) -> tuple[str, ...]:
        self.console.begin(f"all-reduce {placement}")
        wait_for_end(self.folder.path / RUNS / f"allreduce-{placement}")
        try:
            result = measure_allreduce(self.bench, placement, case)
        except HpctrainError as problem:
            self.console.done("failed")
            return problem.messages
        finally:
            self.left.remove(placement)
        known = {name: each.as_json() for name, each in read_allreduces(self.folder.path).items()}
        self.folder.write_allreduces({**known, placement: result.as_json()})
        best = max((point.busbw_gb_per_s for point in result.points), default=0.0)
        self.console.done(f"busbw up to {best:.3g} GB/s")
        return ()

    def _run(self, trial: Trial) -> float:
        """Run a trial; return how long it took (s)."""
        wait_for_end(trial.run_path)
        begun_s = time.monotonic()
        run_trial(trial, self.console.step)
        return time.monotonic() - begun_s

    def _remaining_s(self) -> float:
        return remaining_s(tuple(self.left), self.walls_s, self.estimates_s)


def wait_for_end(run_path: Path) -> None:
    """Let a run of a bench that was killed end its ranks, before it is removed."""
    end_by_s = time.monotonic() + END_OF_RUN_S
    while run_path.exists() and time.monotonic() < end_by_s:
        try:
            check_removable(run_path)
        except RunDirectoryError:
            time.sleep(0.2)
        else:
            return


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
