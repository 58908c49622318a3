"""A measurement's plan, and how to go on with it, as text."""

from __future__ import annotations

import json
import shlex

from hpctrain.bench.scaling.plan import allreduce_placements, plan_order
from hpctrain.bench.scaling.request import Bench
from hpctrain.bench.scaling.trials import CONFIG_FILE, plan_measured_trial
from hpctrain.bench.trial import Trial, plan_trial
from hpctrain.config import dump_toml
from hpctrain.executor import render_command
from hpctrain.hosts import render_hostfile


def render_plan(bench: Bench) -> str:
    """Return what would be measured: files, cases, and the command of each."""
    plan = bench.plan
    steps = f"{plan.timed_steps} steps" if plan.timed_steps else "what COMMAND reports"
    lines = [
        f"# {len(plan.cases)} cases, {plan.repeats} repeats of each, interleaved; timed: {steps} "
        f"after {plan.warmup_steps} of warm-up",
        f"# into {bench.folder}; the commands read {bench.folder / CONFIG_FILE}, see --json",
        *(f"# {note}" for note in bench.notes),
    ]
    for case in plan.cases:
        trial = plan_measured_trial(bench, case, 0)
        hosts = render_hostfile(trial.hosts).strip().replace("\n", ", ") if trial.hosts else ""
        where = f" on {hosts}" if hosts else " on this machine"
        lines += ["", f"# {case.key}{where}", render_command(plan_trial(trial))]
    if bench.allreduce and (placements := allreduce_placements(plan.cases)):
        lines += ["", f"# and all-reduce once on {', '.join(placements)}"]
    return "\n".join(lines)


def render_plan_json(bench: Bench) -> str:
    """Return the plan, with its order and commands, as JSON."""
    order = plan_order(bench.plan.cases, bench.plan.repeats, ())
    trials: list[Trial] = [plan_measured_trial(bench, case, repeat) for case, repeat in order]
    record = bench.plan.as_json() | {
        "folder": str(bench.folder),
        "config_toml": dump_toml(bench.config),
        "trials": [{"name": t.name, "argv": list(plan_trial(t).argv)} for t in trials],
        "allreduces": list(allreduce_placements(bench.plan.cases)) if bench.allreduce else [],
        "notes": list(bench.notes),
        "warnings": list(bench.warnings),
    }
    return json.dumps(record, indent=2)


def render_go_on(bench: Bench) -> str:
    """Return a sentence that says how to go on."""
    return f"Go on: the same command with --out {shlex.quote(str(bench.folder))}"
