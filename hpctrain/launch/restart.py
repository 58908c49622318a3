"""Between two attempts: look at the hosts, wait, and plan anew. What to do is decided in
`attempts.py`, `crew.py` and `resize.py`; here it is found out and done."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from hpctrain.config import Config, as_tables
from hpctrain.errors import PlanError
from hpctrain.facts import Facts
from hpctrain.hosts import LOCALHOST, Host
from hpctrain.launch.attempts import Progress, Verdict, decide_restart
from hpctrain.launch.crew import Crew, choose_crew, count_capacity, expect_ranks
from hpctrain.launch.leftovers import Leftovers
from hpctrain.launch.outcome import Outcome
from hpctrain.launch.placement import count_slots, merge_launcher
from hpctrain.launch.plan import LaunchPlan, plan_launch
from hpctrain.launch.plan_files import write_plan_files
from hpctrain.launch.prepare import Prepared
from hpctrain.launch.rank_env import CONFIG_VARIABLE
from hpctrain.launch.resize import plan_next_config
from hpctrain.launch.signals import StopAsked
from hpctrain.launch.ssh_config import host_alias
from hpctrain.launch.sweep import find_healthy_hosts
from hpctrain.rundir import RunDirectory

LOOKS = 4  # a host that has just lost its power may need half a minute to say so, or to come back
LOOK_AGAIN_S = 10.0
TURN_S = 0.2
MOST_BLAME = 2


class Recovery:
    """What a run remembers from attempt to attempt, and how it finds the next one.

    Args:
        say: shows a line to the person who watches.
    """

    def __init__(
        self, plan: LaunchPlan, prepared: Prepared, facts: Facts, run: RunDirectory,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        request, launch = prepared.request, prepared.config.launch
        self._prepared, self._facts, self._run, self._say = prepared, facts, run, say
        self._max_restarts = launch.max_restarts
        self._first_np = plan.np
        self._min_np = launch.min_np or plan.np
        self._ssh_options, self._python = plan.ssh_options, plan.python
        self._blame: Counter[str] = Counter()
        self.progress, self.restarts = Progress(), 0
        hosts = merge_launcher(request.hosts or (Host(LOCALHOST),), facts)
        self._ranks = {place.host: place.ranks for place in plan.placement}
        self._current = tuple(host for host in hosts if host.name in self._ranks)
        self._others = (*(host for host in hosts if host.name not in self._ranks), *request.spares)
        known = (*self._current, *self._others)
        slots = count_slots(known, request, facts)
        self._capacity = count_capacity(
            slots, {host.name: host.max_slots for host in known}, plan.np,
            sum(slots[host.name] for host in self._current),
        )  # fmt: skip

    def judge(self, outcome: Outcome) -> Verdict:
        """Decide whether another attempt follows."""
        self.progress = self.progress.after(outcome)
        says_steps = self._prepared.is_trainer
        return decide_restart(
            outcome, self.progress, self.restarts, self._max_restarts, says_steps=says_steps
        )

    def find_next(
        self, plan: LaunchPlan, outcome: Outcome, leftovers: Leftovers
    ) -> LaunchPlan | None:
        """Wait, look, plan the next attempt and write its files; None where too few hosts are left.

        Args:
            plan: of the attempt that failed.
            leftovers: of that attempt, swept.

        Raises:
            StopAsked: a signal or an order file asks to stop.
            PlanError: the hosts that are left do not go together.
            OSError: the plan cannot be written.
        """
        self._ranks |= {place.host: place.ranks for place in plan.placement}
        wait_s = self.progress.backoff_s
        self._say(f"restart {self.restarts + 1} of {self._max_restarts} in {wait_s:g} s")
        self.wait_for(leftovers)
        suspects = self._note_blame(plan, outcome)
        crew = self._find_crew(plan, outcome, suspects, wait_s)
        if crew is None:
            return None
        for name, reason in crew.left.items():
            self._say(f"{name} leaves: {reason}")
        if crew.came:
            self._say(f"{', '.join(crew.came)} {'takes' if len(crew.came) == 1 else 'take'} over")
        following = self._plan(crew)
        write_plan_files(following, self._prepared, self._run)
        self.restarts += 1  # only now is it sure that there is one
        self._run.event(
            "restart", restart=self.restarts, max_restarts=self._max_restarts,
            reason=describe_end(outcome), left=dict(crew.left), came=list(crew.came),
            np=crew.np, np_before=plan.np, stalled=self.progress.stalled,
            step=self.progress.step, saved_step=self.progress.saved_step,
        )  # fmt: skip
        self._current, self._others = crew.hosts, crew.others
        return following

    def wait_for(self, leftovers: Leftovers) -> None:
        """Wait until what could not be swept cannot write checkpoints any more.

        Raises:
            StopAsked: a signal or an order file asks to stop.
        """
        left_s, reason = leftovers.wait_s()
        if left_s > 0:
            self._say(reason)
            self._wait(left_s)

    def _plan(self, crew: Crew) -> LaunchPlan:
        prepared = self._prepared
        request = prepared.request
        if request.hosts is not None:
            request = replace(request, hosts=crew.hosts, spares=crew.others)
        request = replace(request, np=crew.np)
        if prepared.is_trainer:
            config = plan_next_config(
                prepared.config, self._first_np, crew.np,
                has_saved=self.progress.saved_step is not None,
            )  # fmt: skip
            request = replace(request, rank_env=rank_env_with(request.rank_env, config))
            if crew.np != self._first_np:
                self._say(
                    f"{crew.np} ranks do the steps of {self._first_np}: train.global_batch_size = "
                    f"{config.train.global_batch_size} as before, train.grad_accum_steps = "
                    f"{config.train.grad_accum_steps}"
                )
        return plan_launch(request, self._facts)

    def _note_blame(self, plan: LaunchPlan, outcome: Outcome) -> dict[str, str]:
        """Return the hosts that the failure is laid to, and remember them."""
        hosts = {plan.rank_hosts[rank] for rank in outcome.suspects}
        if len(hosts) == len(plan.placement) > 1:
            hosts = set()  # all of them: then none of them
        self._blame = Counter({host: self._blame[host] + 1 for host in hosts})
        reason = outcome.failure.reason if outcome.failure else "its ranks never began"
        return {host: reason for host in hosts if not self._facts.is_launcher(host)}

    def _find_crew(
        self, plan: LaunchPlan, outcome: Outcome, suspects: dict[str, str], wait_s: float
    ) -> Crew | None:
        silent = outcome.failure is not None and outcome.failure.kind == "silent"
        # Rank 0's host may be the only one that sees the checkpoints: it leaves only if it must.
        doubtful = {
            host: f"it failed {self._blame[host]} times in a row"
            for host in suspects
            if self._blame[host] >= MOST_BLAME and host != plan.rank_hosts[0]
        }
        for look in range(LOOKS):
            self._wait(wait_s if look == 0 else LOOK_AGAIN_S)
            unfit = self._look()
            crew = choose_crew(
                self._current, self._others, self._capacity, self._first_np, self._min_np,
                unfit, suspects if silent else {}, doubtful,
            )  # fmt: skip
            if crew is not None:
                return crew
            reasons = "; ".join(f"{host}: {reason}" for host, reason in unfit.items())
            again = f"looking again in {LOOK_AGAIN_S:g} s" if look < LOOKS - 1 else "given up"
            self._say(f"too few hosts for {self._min_np} ranks ({reasons}): {again}")
        return None

    def _look(self) -> dict[str, str]:
        """Return the hosts on which no ranks could start, or would soon fail, with the reason."""
        from hpctrain.preflight.between_attempts import find_unfit_hosts

        names = [host.name for host in (*self._current, *self._others)]
        local = frozenset(name for name in names if self._facts.is_launcher(name))
        aliases = {host_alias(name): name for name in names if name not in local}
        found = find_healthy_hosts(list(aliases), self._ssh_options, self._python)
        answering = [*local, *(aliases[alias] for alias, reason in found.items() if not reason)]
        ranks = expect_ranks(answering, self._ranks, self._capacity)
        unfit = {aliases[alias]: reason for alias, reason in found.items() if reason}
        machines = (self._facts.launcher, *self._facts.hosts.values())
        return unfit | find_unfit_hosts(
            ranks, self._prepared, self._ssh_options, local, first=self._current[0].name,
            had_gpus=any(machine.gpus for machine in machines),
        )  # fmt: skip

    def _wait(self, seconds_s: float) -> None:
        until_s = time.monotonic() + seconds_s
        while time.monotonic() < until_s:
            for _, number in self._run.take_orders():
                raise StopAsked(number)
            time.sleep(TURN_S)


def check_min_np(plan: LaunchPlan, min_np: int | None) -> None:
    """Refuse to go on with more ranks than there are to begin with.

    Raises:
        PlanError: launch.min_np is over the plan's ranks.
    """
    if min_np is not None and min_np > plan.np:
        raise PlanError(
            f"--min-np (launch.min_np): more ranks than the run begins with, got {min_np}; "
            f"expected at most {plan.np}."
        )


def describe_end(outcome: Outcome) -> str:
    """Return in a line how an attempt ended."""
    if outcome.failure is not None:
        return outcome.failure.in_words
    if outcome.unreported_ranks:
        return f"{len(outcome.unreported_ranks)} ranks never began"
    return f"mpirun ended with {outcome.exit_code}"


def rank_env_with(rank_env: Mapping[str, str], config: Config) -> dict[str, str]:
    """Return ranks' variables with the configuration that the trainer reads."""
    text = json.dumps(as_tables(config), separators=(",", ":"))
    return {**rank_env, CONFIG_VARIABLE: text}
