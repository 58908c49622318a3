"""A scaling measurement carried out, with trials that are made up: what is kept, told, refused."""

import contextlib
import dataclasses

import bench_values
import pytest

from hpctrain.bench.scaling import measure
from hpctrain.bench.scaling.asked import BenchAsked
from hpctrain.bench.scaling.cases import StoredSample, read_samples
from hpctrain.bench.scaling.measure import Measurement
from hpctrain.bench.scaling.placements import Room
from hpctrain.bench.scaling.request import Bench, plan_bench
from hpctrain.bench.scaling.store import open_bench
from hpctrain.config import Config
from hpctrain.errors import BenchError
from hpctrain.launch.prepare import Asked

PRICE = {"value": 36.0, "what": "as --usd-per-hour says", "as_of": "2026-01-02"}
WALL_S = 100.0


class Console:
    """Remembers what it was told."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)

    warn = begin = done = say

    @contextlib.contextmanager
    def working(self, text):
        self.say(text)
        yield

    @contextlib.contextmanager
    def bar(self, total, remaining_s):
        yield

    def step(self, step):
        pass


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Return a function that measures, and what it ran; `make_sample` says what trials give."""
    ran = []
    monkeypatch.setattr(measure, "probe_load", lambda: 0.0)
    monkeypatch.setattr(Measurement, "_run", lambda self, trial: ran.append(trial.name) or WALL_S)

    def start(make_sample=bench_values.make_sample, program=(), price=None, **asked):
        plan, config, notes = plan_bench(
            BenchAsked(run=Asked(program=program), sizes=(1, 2), **asked), Config(),
            (Room(name="localhost", slots=2, cores=2),), is_local=True,
            environment={"cpu": "x"}, price=price,
        )  # fmt: skip
        bench = Bench(
            folder=tmp_path / "b", plan=plan, config=config, program=program, hosts={},
            ssh_config=None, oversubscribe=False, allreduce=False, metric=None, timeout_s=9.0,
            notes=notes, warnings=(),
        )  # fmt: skip
        monkeypatch.setattr(measure, "read_trial", lambda bench, case, repeat, run, load, wall_s: (
            StoredSample(case=case.key, repeat=repeat, load_before=load, wall_s=wall_s,
                         run=f"runs/{run.name}", sample=make_sample(case))
        ))  # fmt: skip
        console = Console()
        ran.clear()
        with open_bench(bench.folder, plan, config) as folder:
            try:
                Measurement(bench, folder, console).run()
            finally:
                console.ran = tuple(ran)
        return console

    start.ran = ran
    return start


def nan_step(case):
    sample = bench_values.make_sample(case)
    return dataclasses.replace(sample, step_time_s=(*sample.step_time_s[1:], float("nan")))


def test_the_calibration_is_held_against_the_gate(start, tmp_path):
    with pytest.raises(BenchError, match=r"took no time, got nan.*\n.*not kept.*measures it again"):
        start(nan_step)
    assert start.ran == ["calibration-np1-1node"]
    assert read_samples(tmp_path / "b") == ()


def test_an_implausible_trial_is_not_stored_and_the_next_call_measures_it(start, tmp_path):
    def bad_at_two(case):
        # Calibrations are good, so that the trial itself is what is refused.
        is_bad = case.np == 2 and len(start.ran) > 2
        return (nan_step if is_bad else bench_values.make_sample)(case)

    with pytest.raises(BenchError, match=r"weak-fp32-np2-1node, repeat 0.*took no time"):
        start(bad_at_two, repeats=1)
    assert [each.case for each in read_samples(tmp_path / "b")] == ["weak-fp32-np1-1node"]
    console = start(repeats=1)
    assert console.ran[-1] == "weak-fp32-np2-1node-1"
    assert len(read_samples(tmp_path / "b")) == 2


def test_what_goes_on_is_not_calibrated_again(start):
    start(repeats=1)
    assert start.ran[:2] == ["calibration-np1-1node", "calibration-np2-1node"]
    console = start(repeats=2)
    assert console.ran == ("weak-fp32-np1-1node-2", "weak-fp32-np2-1node-2")
    # What is stored took 100 s a trial.
    assert any("2 trials of 2 cases" in text and "about 3:20 min in all" in text
               for text in console.said)  # fmt: skip
    assert not any("calibrating" in text for text in console.said)


def test_the_price_of_a_commands_calibration_is_told_before_it_and_counted(start):
    def no_parts(case):
        return bench_values.make_sample(case, precision=None)

    console = start(no_parts, ("./train",), PRICE, repeats=1)
    before = console.said[: next(i for i, text in enumerate(console.said) if "np 1" in text)]
    assert "2 whole runs of COMMAND" in before[-1]
    assert "at 36.00 USD an hour" in before[-1]
    said = "\n".join(console.said)
    assert "2 trials of 2 cases, 1:40 min each: about 3:20 min in all" in said
    assert "calibrating took 3:20 min before that" in said
    # 400 s of 36 USD an hour.
    assert "costs about 4.00 USD, calibrating included: 36.00 an hour" in said
    assert "as of 2026-01-02" in said
