"""Trials: runs that are measured, under a real mpirun."""

from __future__ import annotations

import sys

import pytest
from small_training import SETTINGS, prepare_data

from hpctrain.bench.samples import read_sample, sample_from_json
from hpctrain.bench.trial import Trial, run_trial
from hpctrain.errors import BenchError

pytestmark = [pytest.mark.needs("mpirun", "horovod")]
SMALL = tuple(f"{key}={value}" for key, value in SETTINGS.items())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare_data(tmp_path_factory.mktemp("data"))


def test_a_trial_of_the_trainer_is_measured_part_by_part(tmp_path, data):
    seen = []
    overrides = (*SMALL, f"data.path={data}", "train.steps=6")
    trial = Trial(name="a", runs_dir=tmp_path, np=2, overrides=overrides, oversubscribe=True)
    sample = read_sample(run_trial(trial, seen.append), warmup_steps=2)
    assert seen == sorted(seen)
    assert (sample.np, sample.precision) == (2, "fp32")
    assert len(sample.step_time_s) == 4
    assert len(sample.losses) == 6
    assert [rank.rank for rank in sample.ranks] == [0, 1]
    for rank in sample.ranks:
        parts_s = [sum(getattr(rank, f"{part}_s")) for part in ("data", "forward", "backward")]
        assert len(rank.exposed_comm_s) == 4
        assert 0 < sum(parts_s) < sum(sample.step_time_s)
    assert not (tmp_path / "a" / "checkpoints").exists()
    assert sample_from_json(sample.as_json()) == sample


def test_a_trial_that_fails_says_why_and_can_be_tried_again(tmp_path):
    program = (sys.executable, "-c", "import sys; sys.exit('no such dataset')")
    trial = Trial(name="b", runs_dir=tmp_path, np=1, program=program)
    with pytest.raises(BenchError, match="no such dataset"):
        run_trial(trial)
    works = Trial(name="b", runs_dir=tmp_path, np=1, program=("true",))
    assert run_trial(works) == tmp_path / "b"
    with pytest.raises(BenchError, match="no steps to measure"):
        read_sample(tmp_path / "b", warmup_steps=0)


def test_a_trial_that_takes_too_long_is_stopped(tmp_path):
    trial = Trial(name="c", runs_dir=tmp_path, np=1, program=("sleep", "600"), timeout_s=1.5)
    with pytest.raises(BenchError, match=r"more than 1\.5 s"):
        run_trial(trial)
