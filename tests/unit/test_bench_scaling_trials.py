"""The trials of a scaling measurement as commands, and what a person sees of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from hpctrain.bench.scaling.asked import BenchAsked
from hpctrain.bench.scaling.placements import Room
from hpctrain.bench.scaling.progress import BenchConsole
from hpctrain.bench.scaling.request import Bench, plan_bench
from hpctrain.bench.scaling.show import render_plan
from hpctrain.bench.scaling.timing import render_duration
from hpctrain.bench.scaling.trials import (
    calibration_cases,
    plan_calibration_trial,
    plan_measured_trial,
)
from hpctrain.bench.trial import plan_trial
from hpctrain.config import Config
from hpctrain.hosts import Host
from hpctrain.launch.prepare import Asked

HOSTS = (
    Host("a", slots=2, max_slots=4, user="ada", port=2222),
    Host("b", slots=2, max_slots=3),
)


def make(sizes=(1, 2, 4), program=()):
    asked = BenchAsked(run=Asked(program=program), sizes=sizes)
    rooms = tuple(Room(name=h.name, slots=h.slots, limit=h.max_slots, cores=4) for h in HOSTS)
    plan, config, notes = plan_bench(
        asked, Config(), rooms, is_local=False, environment={}, price=None
    )
    return Bench(
        folder=Path("benches/x"), plan=plan, config=config, program=program,
        hosts={host.name: host for host in HOSTS}, ssh_config=Path("/c/ssh_config"),
        oversubscribe=True, allreduce=True, metric=None, timeout_s=9.0, notes=notes, warnings=(),
    )  # fmt: skip


def test_a_trial_has_its_cases_hosts_with_what_ssh_must_know():
    bench = make()
    by_key = {case.key: case for case in bench.plan.cases}
    trial = plan_measured_trial(bench, by_key["weak-fp32-np2-2nodes"], 1)
    assert trial.name == "weak-fp32-np2-2nodes-2"
    # No more slots than ranks are to be there, and no limit that would let more on a host.
    assert trial.hosts == (
        replace(HOSTS[0], slots=1, max_slots=None), replace(HOSTS[1], slots=1, max_slots=None),
    )  # fmt: skip
    assert trial.ssh_config == Path("/c/ssh_config")
    assert plan_trial(trial).argv.count("train.batch_size_per_rank=8") == 1


def test_shared_slots_keep_the_hosts_limits():
    bench = make(sizes=(7,))
    (case,) = bench.plan.cases
    assert plan_measured_trial(bench, case, 0).hosts == HOSTS


def test_calibration_is_short_and_at_both_ends():
    bench = make()
    assert [case.key for case in calibration_cases(bench.plan.cases)] == [
        "weak-fp32-np1-1node", "weak-fp32-np4-2nodes",
    ]  # fmt: skip
    trial = plan_calibration_trial(bench, bench.plan.cases[0])
    assert trial.overrides[-1] == "train.steps=4"
    assert plan_calibration_trial(make(program=("x",)), bench.plan.cases[0]).overrides[-1:] != (
        "train.steps=4",
    )
    one = make(sizes=(2,))
    assert len(calibration_cases(one.plan.cases)) == 2  # one node, and two


def test_a_plan_names_cases_hosts_and_all_reduces():
    text = render_plan(make())
    assert "# weak-fp32-np2-2nodes on a slots=1 user=ada port=2222, b slots=1" in text
    assert "# and all-reduce once on np2-1node, np2-2nodes, np4-2nodes" in text


@pytest.mark.parametrize("is_terminal", [False, True])
def test_each_trial_is_told_with_what_is_left(capsys, is_terminal):
    console = BenchConsole(is_terminal)
    with console.bar(2, lambda: 90.0):
        for name in ("one", "two"):
            console.begin(name)
            console.step(3)
            console.done("5 s a step")
    said = capsys.readouterr().err
    assert "1/2 one: 5 s a step, took 0.0 s" in said
    assert "2/2 two: 5 s a step" in said
    assert ("eta 1:30 min" in said) or is_terminal


def test_durations():
    assert [render_duration(s) for s in (0.04, 9.94, 59.9, 60, 3599.4, 3600)] == [
        "0.0 s", "9.9 s", "60 s", "1:00 min", "59:59 min", "1:00 h",
    ]  # fmt: skip
