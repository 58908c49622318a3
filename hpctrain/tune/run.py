"""Tune: say what is coming, measure, judge, write the file, say what was found."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from hpctrain.errors import BenchError
from hpctrain.tune import show
from hpctrain.tune.arms import arm_name
from hpctrain.tune.asked import TuneAsked
from hpctrain.tune.halving import LEAST_PAIRS
from hpctrain.tune.measure import run_search
from hpctrain.tune.request import Tuning
from hpctrain.tune.search import Search
from hpctrain.tune.store import TuneStore, write_whole
from hpctrain.tune.tuned_file import foreign_file_problem, name_tuning, render_tuned
from hpctrain.tune.verdict import Verdict, judge

BUSY_LOAD = 0.5  # of one core, before a measurement of our own


def run_tuning(tuning: Tuning, *, as_json: bool = False) -> Verdict:
    """Measure and write the file; what was measured before an interruption is kept.

    Raises:
        BenchError: the default configuration does not run, the budget has no room for a
            comparison, or another process tunes in the same directory.
    """
    show.print_plan(tuning, err=True)
    _warn_if_busy()
    store = TuneStore(tuning.asked.folder)
    console = show.TuneConsole(tuning)
    try:
        search = run_search(tuning, store, console)
    finally:
        console.close()
        store.close()
    if not search.pairs and not search.failed:
        raise BenchError(
            f"--budget: no time for a comparison, got {show.duration(tuning.limits.budget_s)}; "
            f"a trial takes {search.trial_s:.1f} s, expected at least "
            f"{show.duration(search.trial_s * (2 * LEAST_PAIRS + 4))}. Go on with more: "
            f"hpctrain tune --dir {tuning.asked.folder} --budget TIME"
        )
    verdict = judge(search, tuning.values, tuning.not_chosen)
    asked = tuning.asked
    text = render_tuned(
        tuning.base, tuning.knobs, verdict, tuning.machine, tuning.np, tuning.again,
        tuning=name_tuning(asked.out, asked.folder),
    )  # fmt: skip
    record = result_as_json(verdict, search, tuning)
    store.write("result.json", json.dumps(record, indent=1) + "\n")
    write_tuned(asked, text)
    if as_json:
        click.echo(json.dumps(record, indent=2))
    else:
        paths = (f"written: {tuning.asked.out}; every value: {store.folder / 'trials.jsonl'}",)
        show.print_verdict(verdict, tuning, search, paths)
    return verdict


def write_tuned(asked: TuneAsked, text: str) -> None:
    """Write the file: complete or as it was.

    Raises:
        BenchError: since this tuning began, somebody else has made a file of that name; what was
            found is then in the work directory.
    """
    out = asked.out
    problem = foreign_file_problem(out, asked.folder, force=asked.force)
    if problem is not None:
        kept = asked.folder / "tuned.toml"
        write_whole(kept, text)
        raise BenchError(f"{problem}. What was found now is in {kept}.")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, text)


def _warn_if_busy() -> None:
    load = os.getloadavg()[0]
    if load > BUSY_LOAD:
        mark = click.style("warning: ", fg="yellow", bold=True)
        click.echo(f"{mark}this machine is busy, load {load:.2f}: expect spread", err=True)


def result_as_json(verdict: Verdict, search: Search, tuning: Tuning) -> dict[str, Any]:
    """Return what was found as JSON-ready values."""
    return {
        **verdict.as_json(),
        "out": str(tuning.asked.out),
        "dir": str(tuning.asked.folder),
        "machine": dict(tuning.machine),
        "np": tuning.np,
        "trials": len(search.walls_s),
        "spent_s": search.spent_s,
        "steps": {arm_name(arm): steps for arm, steps in search.steps.items()},
        "failed": sorted(map(arm_name, search.failed)),
        "unmeasured": [arm_name(arm) for arm in search.unmeasured],
        "cut_short": search.cut_short,
    }
