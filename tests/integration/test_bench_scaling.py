"""``hpctrain bench`` under a real mpirun: measured, interrupted, gone on with, and what fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import launching
import pytest
from small_training import SETTINGS, as_options, prepare_data

from hpctrain.bench.scaling import allreduces
from hpctrain.bench.scaling.cases import read_bench
from hpctrain.cli import main

pytestmark = [pytest.mark.needs("mpirun")]

# Says how fast it is in both ways; from its third trial on it fails where a file says so.
PROGRAM = """
import os, pathlib, sys, time
from hpctrain.events import report_step
print("loading", flush=True)
if pathlib.Path("fails").exists() and "-2" in os.environ["HPCTRAIN_RUN"]:
    sys.exit("no more disk")
for step in range(1, 5):
    time.sleep(0.01)
    if os.environ["RANK"] == "0":
        print(f"throughput: {1000 * step:,}.5 samples/s", flush=True)
        if "--events" in sys.argv:
            tokens_per_s = 50.0 * int(os.environ["WORLD_SIZE"])  # each rank has the same work
            report_step(step, step_time_s=0.01 * step, tokens_per_s=tokens_per_s)
"""


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run ``hpctrain bench`` to its end."""
    argv = [sys.executable, "-m", "hpctrain", "bench", *arguments]
    return subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, timeout=launching.TIMEOUT_S,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    return ("--", sys.executable, "program.py")


@pytest.mark.needs("horovod")
def test_the_trainer_interrupted_and_gone_on_with(tmp_path):
    """No trial is measured twice, none is lost; and in the end there is a report."""
    data = prepare_data(tmp_path)
    settings = {**SETTINGS, "data.path": data, "train.global_batch_size": 6}
    arguments = ["--np", "1,2", "--repeats", "2", "--warmup-steps", "1", "--steps", "4"]
    arguments += ["--oversubscribe", "--no-allreduce", "--out", "b", *as_options(settings)]
    samples = tmp_path / "b" / "samples.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "hpctrain", "bench", *arguments], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    second = tmp_path / "b" / "runs" / "weak-fp32-np2-1node-1" / "events.jsonl"
    launching.wait_until(second.exists, "the second trial", launching.TIMEOUT_S)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Go on: the same command with --out b" in err
    (first,) = read_bench(tmp_path / "b")[1]
    assert (first.case, first.repeat) == ("weak-fp32-np1-1node", 0)
    with open(samples, "ab") as file:
        file.write(b'{"case": "weak-fp32-np2')  # as a crash leaves it

    done = bench(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "3 trials of 2 cases" in done.stderr
    plan, stored, allreduces = read_bench(tmp_path / "b")
    assert stored[0] == first
    assert [(each.case, each.repeat) for each in stored] == [
        ("weak-fp32-np1-1node", 0), ("weak-fp32-np2-1node", 0),
        ("weak-fp32-np1-1node", 1), ("weak-fp32-np2-1node", 1),
    ]  # fmt: skip
    assert allreduces == {}
    for each in stored:
        assert len(each.sample.step_time_s) == 4
        assert each.sample.tokens_per_step == 6 * each.sample.np * SETTINGS["model.seq_len"]
        assert len(each.sample.ranks) == each.sample.np
        assert (tmp_path / "b" / each.run / "events.jsonl").exists()
    # The same seed: at one size every trial trains the same.
    assert stored[0].sample.losses[0] == pytest.approx(stored[2].sample.losses[0], rel=1e-5)
    assert {"mpi", "torch", "horovod", "hosts"} <= plan.environment.keys()
    assert all((tmp_path / "b" / f"report.{kind}").exists() for kind in ("json", "md", "html"))

    again = bench(tmp_path, *arguments)
    assert again.returncode == 0, again.stderr
    assert "all is measured already" in again.stderr
    assert read_bench(tmp_path / "b")[1] == stored


def test_a_command_that_prints_its_rate(tmp_path, program):
    arguments = ["--np", "1", "--repeats", "2", "--warmup-steps", "1", "--out", "b"]
    metric = ("--metric", r"throughput: ([\d.,]+)")
    done = bench(tmp_path, *arguments, *metric, "--usd-per-hour", "36", "--json", *program)
    assert done.returncode == 0, done.stderr
    before = done.stderr.index("1 whole run of COMMAND, thrown away, at 36.00 USD")
    assert before < done.stderr.index("calibrating: a run of np 1 on 1 node")
    assert "2 trials of 1 case" in done.stderr
    assert "USD, calibrating included: 36.00 an hour (as --usd-per-hour says" in done.stderr
    assert json.loads(done.stdout)
    plan, stored, _ = read_bench(tmp_path / "b")
    assert [each.metric for each in stored] == [(2000.5, 3000.5, 4000.5)] * 2
    assert [each.sample.step_time_s for each in stored] == [(), ()]
    assert (plan.timed_steps, plan.usd_per_hour["value"]) == (None, 36.0)

    # One of them again, and one more.
    arguments[3] = "3"
    more = ("--usd-per-hour", "36", "--remeasure", "weak-np1-1node-2")
    done = bench(tmp_path, *arguments, *metric, *more, *program)
    assert done.returncode == 0, done.stderr
    assert "2 trials of 1 case" in done.stderr
    assert "calibrating" not in done.stderr
    plan, again, _ = read_bench(tmp_path / "b")
    assert (plan.repeats, again[0]) == (3, stored[0])
    assert [each.repeat for each in again] == [0, 1, 2]
    (dropped,) = (tmp_path / "b" / "dropped.jsonl").read_text().splitlines()
    assert json.loads(dropped)["time_s"] == stored[1].time_s < again[1].time_s


def test_a_trial_that_fails_is_named_and_nothing_is_lost(tmp_path, program):
    (tmp_path / "fails").touch()
    arguments = ["--np", "1,2", "--repeats", "2", "--warmup-steps", "2", "--out", "b"]
    arguments += ["--oversubscribe", "--no-allreduce", *program, "--events"]
    done = bench(tmp_path, *arguments)
    assert done.returncode == 1
    assert "runs/weak-np1-1node-2: the run failed, got exit code 1" in done.stderr
    assert "no more disk" in done.stderr
    stored = read_bench(tmp_path / "b")[1]
    assert [(each.case, each.repeat) for each in stored] == [
        ("weak-np1-1node", 0), ("weak-np2-1node", 0),
    ]  # fmt: skip
    assert [each.sample.step_time_s for each in stored] == [(0.03, 0.04)] * 2

    (tmp_path / "fails").unlink()
    done = bench(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert len(read_bench(tmp_path / "b")[1]) == 4


def test_what_cannot_be_measured_is_said_by_the_calibration(tmp_path):
    done = bench(tmp_path, "--np", "1", "--out", "b", "--no-allreduce", "--", "true")
    assert done.returncode == 1
    assert "no steps to measure" in done.stderr
    assert "calibrat" in done.stderr
    assert read_bench(tmp_path / "b")[1] == ()


def test_a_dry_run_touches_nothing_and_its_commands_are_those(tmp_path, program):
    arguments = ["--np", "1,2", "--repeats", "3", "--oversubscribe", "--out", "b", "--dry-run"]
    done = bench(tmp_path, *arguments, *program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("-m hpctrain run --np") == 2
    assert "weak-np2-1node" in done.stdout
    as_json = bench(tmp_path, *arguments, "--json", *program)
    trials = json.loads(as_json.stdout)["trials"]
    assert [trial["name"] for trial in trials] == [
        f"weak-np{np}-1node-{repeat}" for repeat in (1, 2, 3) for np in (1, 2)
    ]
    assert os.listdir(tmp_path) == ["program.py"]


@pytest.mark.needs("torch", "horovod")
def test_all_reduce_once_on_each_placement(tmp_path, program, monkeypatch, capsys):
    monkeypatch.setattr(allreduces, "ALLREDUCE_SIZES", (4, 4096, 65536))
    monkeypatch.setattr(allreduces, "ALLREDUCE_BUDGET_S", 1.0)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.chdir(tmp_path)
    words = ["--np", "1,2", "--repeats", "1", "--warmup-steps", "1", "--oversubscribe"]
    for attempt in range(2):
        with pytest.raises(SystemExit) as ended:
            main(["bench", *words, "--out", "b", *program, "--events"])
        said = capsys.readouterr()
        assert ended.value.code == 0, said.err
        assert ("all is measured already" in said.err) == (attempt == 1)
    (found,) = read_bench(tmp_path / "b")[2].items()
    placement, result = found
    assert (placement, result.n, result.nodes) == ("np2-1node", 2, 1)
    assert {point.bytes_ for point in result.points} == {4, 4096, 65536}
    assert not any(point.wrong for point in result.points)
