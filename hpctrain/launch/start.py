"""Carry out a launch plan: make the run directory, run attempts, clean up, say how it ended."""

from __future__ import annotations

import resource
import signal
import time
from dataclasses import asdict, replace
from typing import Any

from hpctrain.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_RESUMABLE,
    HpctrainError,
    LaunchError,
)
from hpctrain.facts import Facts
from hpctrain.goodput import Goodput, read_goodput
from hpctrain.launch.attempts import Verdict
from hpctrain.launch.console import RunConsole
from hpctrain.launch.leftovers import Leftovers, find_earlier_leftovers, leftovers_of
from hpctrain.launch.outcome import Outcome
from hpctrain.launch.plan import LaunchPlan
from hpctrain.launch.plan_files import write_plan_files
from hpctrain.launch.prepare import Prepared
from hpctrain.launch.restart import Recovery, check_min_np, describe_end
from hpctrain.launch.signals import SAVE_SIGNALS, StopAsked, raising_stop_asked
from hpctrain.launch.ssh_config import host_alias
from hpctrain.launch.supervisor import Supervisor
from hpctrain.launch.sweep import diagnose_hosts
from hpctrain.rundir import RunDirectory


def start_run(plan: LaunchPlan, prepared: Prepared, facts: Facts) -> int:
    """Run the plan, again where that is asked for and may help; return the exit code.

    Raises:
        RunDirectoryError: the run's name is taken or in use.
        PlanError: mpirun cannot be started, or launch.min_np is over the ranks.
        LaunchError: the launcher itself cannot go on, e.g. on a full disk.
    """
    check_min_np(plan, prepared.config.launch.min_np)
    _allow_open_files(plan.np)
    run = RunDirectory.create(prepared.run_path, resume=prepared.resume)
    try:
        with raising_stop_asked():
            return _RunLoop(plan, prepared, facts, run).run()
    except StopAsked as asked:  # once more, while we cleaned up
        return 128 + asked.number
    finally:
        run.close()


class _RunLoop:
    """One launcher's attempts at a run."""

    def __init__(
        self, plan: LaunchPlan, prepared: Prepared, facts: Facts, run: RunDirectory
    ) -> None:
        self.plan, self.prepared, self.facts, self.run_directory = plan, prepared, facts, run
        self.started_at_s = time.monotonic()
        self.end: Outcome | None = None
        self.goodput: Goodput | None = None
        self.console = RunConsole(plan, run)
        self.leftovers: Leftovers | None = None
        run.warn = lambda text: self.console.warn(text)
        self.recovery = Recovery(plan, prepared, facts, run, self._say)
        self.reason = "resumed" if prepared.resume else "first"

    def run(self) -> int:
        """Run attempts until one is the last; return the exit code."""
        try:
            outcome = self._run_attempts()
        except StopAsked as asked:
            if self.end is not None:  # it had ended already: it is only not told to its end
                return self.end.exit_code
            outcome = self._stopped_by(asked.number)
            self.console.finish(outcome)
            self._write_end(outcome)
        except BaseException as problem:  # the launcher itself cannot go on, or was told to let be
            if self.end is None:
                self._write_end(_broken_by(problem, self.started_at_s))
            raise
        finally:
            self._sweep()  # where it was broken off, or never begun
        if self.goodput is not None and self.recovery.restarts:
            self._say(self.goodput.in_words())
        return outcome.exit_code

    def _run_attempts(self) -> Outcome:
        if self.prepared.resume:
            self._end_earlier_attempt()
        write_plan_files(self.plan, self.prepared, self.run_directory)
        for warning in (*self.prepared.warnings, *self.plan.warnings):
            self.console.warn(warning)
        while True:
            outcome = self._attempt()
            verdict = self.recovery.judge(outcome)
            number = outcome.stop_signal
            if outcome.state == "stopped" and outcome.stopped_early and number in SAVE_SIGNALS:
                # As between two attempts: there was nothing to save yet.
                outcome = self._stopped_by(number)
            if not verdict.goes_on:
                outcome = _conclude_run(outcome, verdict)
                self._write_end(outcome)
                self._end_attempt(outcome)
                if verdict.reason:
                    self._say(verdict.reason)
                return outcome
            self._end_attempt(outcome)
            following = self._find_next(outcome)
            if following is None:
                self._write_end(outcome)
                return outcome
            self.reason = f"restart {self.recovery.restarts}: {describe_end(outcome)}"
            self.plan = following

    def _attempt(self) -> Outcome:
        plan, run = self.plan, self.run_directory
        number = run.begin_attempt()
        self.console = RunConsole(plan, run)
        self.console.header(number)
        supervisor = Supervisor(plan, run, self.console, number)
        run.event(
            "attempt", attempt=number, attempt_id=supervisor.attempt_id, np=plan.np,
            hosts=[place.host for place in plan.placement], reason=self.reason,
        )  # fmt: skip
        self.leftovers = leftovers_of(
            supervisor.attempt_id, [place.host for place in plan.placement], self.facts,
            self.prepared, plan.ssh_options,
        )  # fmt: skip
        try:
            outcome = _watch(supervisor, run)
        except BaseException as problem:
            broken = _broken_by(problem, supervisor.started_at_s)
            run.event("attempt_finished", attempt=number, **_describe(broken))
            raise
        if not outcome.needs_sweep:
            self.leftovers = None
        run.event("attempt_finished", attempt=number, **_describe(outcome))
        return outcome

    def _end_earlier_attempt(self) -> None:
        """Wait, for a time, until nothing is left of another launcher's attempt; end the rest."""
        self.leftovers = find_earlier_leftovers(
            self.facts, self.prepared, self.run_directory, self._say
        )
        self._sweep()
        if self.leftovers is not None:
            self.recovery.wait_for(self.leftovers)
            self.leftovers = None

    def _end_attempt(self, outcome: Outcome) -> None:
        """Say how it ended, and leave nothing of it behind."""
        unheard = outcome.state == "failed" and bool(outcome.unreported_ranks)
        self.console.finish(outcome, _diagnose(self.plan, outcome) if unheard else [])
        self._sweep()

    def _sweep(self) -> None:
        if self.leftovers is not None:
            self.leftovers.sweep(self.console.warn)

    def _find_next(self, outcome: Outcome) -> LaunchPlan | None:
        assert self.leftovers is not None  # an attempt that is tried again has failed
        try:
            return self.recovery.find_next(self.plan, outcome, self.leftovers)
        except HpctrainError as problem:
            for message in problem.messages:
                self.console.warn(message)
        except OSError as problem:
            self.console.warn(f"the next attempt cannot be prepared: {problem}")
        return None

    def _stopped_by(self, number: int) -> Outcome:
        """Return how a run ends that was stopped between two attempts: nothing of it runs."""
        progress, stopped_by_scheduler = self.recovery.progress, number in SAVE_SIGNALS
        checkpoints = self.run_directory.path.glob("checkpoints/step-*/index.json")
        saved = progress.saved_step is not None or any(checkpoints)
        resumable = self.prepared.is_trainer and saved and stopped_by_scheduler
        code = 128 + (signal.SIGTERM if stopped_by_scheduler else number)
        return Outcome(
            state="resumable" if resumable else "stopped",
            exit_code=EXIT_RESUMABLE if resumable else code,
            duration_s=time.monotonic() - self.started_at_s, stop_signal=number, retryable=True,
            step=progress.saved_step if resumable else progress.step,
        )  # fmt: skip

    def _write_end(self, outcome: Outcome) -> None:
        """Write the run's last event; each attempt has one of its own before it."""
        run, self.end = self.run_directory, outcome
        if run.attempt == 0:  # none has begun: what is to be said of earlier ones stands there
            return
        fields = _describe(outcome)
        fields["duration_s"] = round(time.monotonic() - self.started_at_s, 3)
        self.goodput = goodput = read_goodput(run.path)
        run.event(
            "run_finished", attempt=run.attempt, restarts=self.recovery.restarts, **fields,
            goodput={**asdict(goodput), "share": round(goodput.share, 4)} if goodput else None,
        )  # fmt: skip

    def _say(self, text: str) -> None:
        self.console.note(text)


def _watch(supervisor: Supervisor, run: RunDirectory) -> Outcome:
    try:
        return supervisor.run()
    except OSError as problem:
        raise LaunchError(
            f"{run.path}: the launcher cannot go on: {problem}. All ranks were ended."
        ) from problem


def _broken_by(problem: BaseException, started_at_s: float) -> Outcome:
    """Return how an attempt ended that the launcher itself broke off."""
    was_asked = isinstance(problem, (KeyboardInterrupt, StopAsked))
    code = EXIT_INTERRUPTED if was_asked else getattr(problem, "exit_code", EXIT_FAILED)
    code = 128 + problem.number if isinstance(problem, StopAsked) else code
    return Outcome(
        state="stopped" if was_asked else "failed",
        exit_code=code,
        duration_s=time.monotonic() - started_at_s,
        retryable=was_asked,
        final_reason="" if was_asked else str(problem),
    )


def _describe(outcome: Outcome) -> dict[str, Any]:
    return {
        "state": outcome.state,
        "exit_code": outcome.exit_code,
        "duration_s": round(outcome.duration_s, 3),
        "failure": asdict(outcome.failure) if outcome.failure else None,
        "retryable": outcome.retryable,
        "final_reason": outcome.final_reason or None,
    }


def _conclude_run(outcome: Outcome, verdict: Verdict) -> Outcome:
    """Return how the run ends with its last attempt; one that gets nowhere must not be requeued."""
    if not verdict.exhausted:
        return outcome
    return replace(outcome, exit_code=EXIT_FAILED, retryable=False, final_reason=verdict.reason)


def _diagnose(plan: LaunchPlan, outcome: Outcome) -> list[str]:
    silent = {host_alias(plan.rank_hosts[rank]) for rank in outcome.unreported_ranks}
    hosts = [host for host in plan.remote_hosts if host in silent]
    return diagnose_hosts(hosts, plan.ssh_options, plan.python)


def _allow_open_files(np: int) -> None:
    """A connection and two files a rank: the usual limit of 1024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 3 * np + 128
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
