"""Tuning with real runs: interrupted, gone on with, and the file that comes of it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from small_training import SETTINGS, prepare_data

from hpctrain.config import load_config
from hpctrain.tune.arms import DEFAULT
from hpctrain.tune.asked import TuneAsked
from hpctrain.tune.measure import run_search
from hpctrain.tune.request import prepare_tuning
from hpctrain.tune.search import FINAL, Limits
from hpctrain.tune.store import TuneStore, read_trials
from hpctrain.tune.verdict import judge

pytestmark = [pytest.mark.needs("mpirun", "horovod")]
# Three steps a trial, and so few of them that there is room for one round of the final.
FEW = Limits(budget_s=1e6, steps=3, most_steps=9)


class Listener:
    """Remembers what is measured, and interrupts."""

    def __init__(self, interrupt_at=None):
        self.interrupt_at, self.measured, self.kept = interrupt_at, [], 0

    def trial(self, ask, search, *, kept):
        self.kept += kept
        if not kept and self.interrupt_at == len(self.measured):
            raise KeyboardInterrupt

    def result(self, ask, measured, problem):
        assert problem is None
        self.measured.append((ask.arm, ask.round_number, measured))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def settings(data):
    given = {**SETTINGS, "data.path": data, "train.tokens": 10**9, "comm.bucket_mb": 25}
    return tuple(f"{key}={value}" for key, value in given.items())


def ask(folder, settings, **more):
    return TuneAsked(folder=folder / "work", np=2, overrides=settings, oversubscribe=True,
                     out=folder / "tuned.toml", **more)  # fmt: skip


def test_what_was_measured_before_an_interruption_is_not_measured_again(tmp_path, settings):
    asked = ask(tmp_path, settings, only=("mpi_yield_when_idle",))
    tuning = replace(prepare_tuning(asked, os.environ), limits=FEW)
    first, second = Listener(interrupt_at=2), Listener()
    store = TuneStore(asked.folder)
    with pytest.raises(KeyboardInterrupt):
        run_search(tuning, store, first)
    store.close()
    assert len(list(read_trials(asked.folder))) == len(first.measured) == 2

    on = replace(prepare_tuning(TuneAsked(folder=asked.folder), os.environ), limits=FEW)
    assert (on.values, on.known, on.np) == (tuning.values, True, 2)
    assert on.identity == tuning.identity
    store = TuneStore(asked.folder)
    search = run_search(on, store, second)
    store.close()
    assert second.kept == 2
    keys = [(arm, number) for arm, number, _ in first.measured + second.measured]
    assert len(set(keys)) == len(keys) == len(list(read_trials(asked.folder)))
    assert max(search.steps.values()) <= FEW.most_steps
    assert sum(each.rung == FINAL and DEFAULT in each.step_s for each in search.rounds) >= 1
    for record in read_trials(asked.folder):
        assert len(record["sample"]["step_time_s"]) == 1  # of three steps two warm up
        assert record["step_s"] == record["sample"]["step_time_s"][0]
        variables = json.loads((asked.folder / record["run"] / "plan.json").read_text())
        yields = "--mca mpi_yield_when_idle 1" in " ".join(variables["argv"])
        assert yields == (record["arm"] == [])
    assert judge(search, on.values).arm == DEFAULT  # one pair is too little to change anything


def test_ctrl_c_keeps_the_trials_and_says_how_to_go_on(tmp_path, settings):
    argv = [sys.executable, "-m", "hpctrain", "tune", "--np", "2", "--oversubscribe",
            "--only", "HOROVOD_CYCLE_TIME", "--dir", "work", "--out", "tuned.toml"]  # fmt: skip
    argv += [word for setting in settings for word in ("--set", setting)]
    process = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, start_new_session=True)  # fmt: skip
    trials = tmp_path / "work" / "trials.jsonl"
    end_by_s = time.monotonic() + 120
    while not (trials.exists() and trials.read_text().count("\n")) and process.poll() is None:
        assert time.monotonic() < end_by_s
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "Go on: hpctrain tune --dir work" in err
    assert "a trial takes" in err
    assert len(list(read_trials(tmp_path / "work"))) >= 1
    assert not (tmp_path / "tuned.toml").exists()
    for run in (tmp_path / "work" / "runs").glob("*/.lock"):
        assert subprocess.run(["flock", "--nonblock", run, "true"]).returncode == 0


def test_a_model_that_does_not_run_is_said_so(tmp_path, settings):
    argv = [sys.executable, "-m", "hpctrain", "tune", "--np", "2", "--oversubscribe",
            "--only", "HOROVOD_CYCLE_TIME"]  # fmt: skip
    argv += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run([*argv, "--set", "data.path=nowhere"], cwd=tmp_path,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1
    assert "the run failed" in done.stderr
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert load_config(next(tmp_path.glob("tunings/*/base.toml"))).data.path == "nowhere"
