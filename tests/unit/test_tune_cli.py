"""`hpctrain tune` on the command line: what is refused, all at once, and what would be tried."""

import json
import os
from collections import namedtuple
from pathlib import Path

import pytest
import tiers
from click.shell_completion import ShellComplete

from hpctrain.cli import cli, main
from hpctrain.tune.tuned_file import FIRST_WORDS, TUNING_WORDS

Ended = namedtuple("Ended", "code out err")
FOREIGN = ("OMPI_", "PMI", "NCCL_", "HPCTRAIN_", "OMP_", "HOROVOD_", "SLURM_", "PBS_")
MPIRUN = '#!/bin/sh\n[ "$1" = --version ] && echo "mpirun (Open MPI) {version}"\n'
SIZES = ("--np", "2", "--oversubscribe", "--set", "train.device=cpu")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder, and an mpirun that says which version it is and starts nothing."""
    for name in os.environ:
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    work = tmp_path / "work"
    work.mkdir()
    program = tmp_path / "mpirun"
    program.write_text(MPIRUN.format(version="5.0.11"))
    program.chmod(0o755)
    monkeypatch.setenv("HPCTRAIN_MPIRUN", str(program))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("hpctrain.tune.request.check_trainer", lambda config, facts: None)
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def tune(place, capsys):
    """Run it in this process; nothing may be made."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(["tune", *map(str, words)])
        assert not (place / "tunings").exists()
        return Ended(ended.value.code, *capsys.readouterr())

    return run


def identity_here():
    """Return what a tuning on this machine must have in common with another."""
    from hpctrain.tune.asked import TuneAsked
    from hpctrain.tune.request import prepare_tuning

    asked = TuneAsked(folder=Path("new"), np=2, oversubscribe=True,
                      overrides=("train.device=cpu",))  # fmt: skip
    return prepare_tuning(asked, os.environ).identity["machine"]


def test_no_trial_takes_the_runs_spares_or_is_started_again(tune):
    from hpctrain.tune.asked import TuneAsked
    from hpctrain.tune.request import prepare_tuning

    asked = TuneAsked(
        folder=Path("new"), np=1, host_list="localhost:2,n2:2",
        overrides=("train.device=cpu", "launch.spares=1", "launch.max_restarts=3"),
    )  # fmt: skip
    made = prepare_tuning(asked, os.environ)
    assert [host.name for host in made.hosts] == ["localhost"]
    assert "spares" not in made.trial_config
    assert "max_restarts" not in made.trial_config


def test_a_dry_run_says_what_would_be_tried_and_why(tune):
    done = tune(*SIZES, "--dry-run")
    assert done.code == 0, done.err
    assert "mpi_yield_when_idle: now 1; tried: 0" in done.out
    assert "not tried: NCCL_ALGO: no NCCL" in done.out
    assert "at most 10 min (--budget)" in done.out
    assert "60 steps a candidate" in done.out


def test_the_plan_as_json(tune):
    plan = json.loads(tune(*SIZES, "--dry-run", "--json", "--only", "comm.bucket_mb").out)
    assert [knob["name"] for knob in plan["knobs"]] == ["comm.bucket_mb"]
    assert (plan["np"], plan["budget_s"], plan["most_steps_a_candidate"]) == (2, 600.0, 60)
    assert all(each["why"] for each in plan["left_out"])
    assert plan["machine"]["mpi"] == "openmpi5 5.0.11"


@pytest.mark.parametrize("version", ["4.1.8", "5.0.11"])
def test_both_versions_of_open_mpi(tune, place, version):
    (place.parent / "mpirun").write_text(MPIRUN.format(version=version))
    plan = json.loads(tune(*SIZES, "--dry-run", "--json").out)
    assert plan["machine"]["mpi"].endswith(version)
    assert "coll_tuned_allreduce_algorithm" in [knob["name"] for knob in plan["knobs"]]


def test_all_that_is_wrong_is_said_at_once(tune, place):
    (place / "tuned.toml").write_text("[train]\nsteps = 5\n")
    done = tune("--np", "2", "--budget", "soon", "--only", "comm.bucket,NCCL_ALGO",
                "--set", "train.step=3", "--set", "optim.lr=-1")  # fmt: skip
    assert done.code == 2
    assert done.out == ""
    assert "--budget: no duration, got 'soon'" in done.err
    assert "--only: unknown knob, got 'comm.bucket'" in done.err
    assert "Did you mean 'comm.bucket_mb'?" in done.err
    assert "--out: tuned.toml is there and was not made by hpctrain tune" in done.err
    assert "--set train.step=3: unknown key" in done.err
    assert "--set optim.lr=-1" in done.err
    assert (place / "tuned.toml").read_text() == "[train]\nsteps = 5\n"


def test_what_another_tuning_found_is_not_written_over_silently(tune, place):
    text = f"{FIRST_WORDS} on 2026-01-02\n{TUNING_WORDS}tunings/older\n"
    (place / "tuned.toml").write_text(text)
    words = (*SIZES, "--dry-run", "--dir")
    done = tune(*words, place / "newer")
    assert done.code == 2
    assert "tuned.toml is what another tuning found, got tunings/older; expected a new" in done.err
    assert tune(*words, place / "newer", "--force").code == 0
    assert tune(*words, place / "newer", "--out", "other.toml").code == 0
    # Its own file is there for a tuning that goes on.
    (place / "tuned.toml").write_text(text.replace("tunings/older", "newer"))
    assert tune(*words, place / "newer").code == 0
    (place / "tuned.toml").write_text("mine\n")
    assert tune(*words, place / "newer", "--force").code == 2


def test_what_does_not_apply_is_refused_with_the_reason(tune):
    done = tune(*SIZES, "--only", "NCCL_ALGO,comm.bucket_mb", "--dry-run")
    assert done.code == 2
    assert "NCCL_ALGO does not apply here: no NCCL: 2 ranks on CPUs, mpi exchanges" in done.err


def test_only_may_be_given_twice(tune):
    only = ("--only", "comm.bucket_mb", "--only", "NCCL_ALGO")
    done = tune(*SIZES, *only, "--dry-run")
    assert "NCCL_ALGO does not apply here" in done.err
    plan = json.loads(
        tune(*SIZES, *only[:2], "--only", "HOROVOD_CYCLE_TIME", "--dry-run", "--json").out
    )
    assert sorted(knob["name"] for knob in plan["knobs"]) == [
        "HOROVOD_CYCLE_TIME",
        "comm.bucket_mb",
    ]


def test_too_few_slots_are_told_with_the_rest(tune):
    done = tune("--np", "500", "-H", "localhost:2", "--budget", "0")
    assert done.code == 2
    assert "--budget" in done.err
    assert "500" in done.err


def test_another_tunings_directory_is_refused(tune, place):
    folder = place / "work"
    folder.mkdir()
    settings = {"train.device": "cpu", "launch.np": 2, "optim.lr": 0.5}
    asked = {"host_list": None, "cluster": None, "only": [], "seed": 3, "oversubscribe": True,
             "allow_lossy": False}  # fmt: skip
    record = {"schema": 2, "asked": asked, "settings": settings, "machine": {}, "commit": "x"}
    (folder / "tune.json").write_text(json.dumps(record))
    done = tune(*SIZES, "--dir", folder, "--seed", "4")
    assert done.code == 2
    assert "optim.lr is None here; expected 0.5" in done.err
    assert "--seed is 4 here; expected 3" in done.err
    record |= {"machine": identity_here()}
    (folder / "tune.json").write_text(json.dumps(record))
    (folder / "base.toml").write_text('[train]\ndevice = "cpu"\n[optim]\nlr = 0.5\n'
                                      "[launch]\nnp = 2\n")  # fmt: skip
    again = tune("--dir", folder, "--dry-run")  # names no job: goes on with what is there
    assert again.code == 0, again.err
    assert "the tuning began at commit x and goes on at" in again.err


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("torch", "1.0"), ("horovod", "0.1"), ("mpi", "openmpi4 4.1.8"), ("python", "3.9.0"),
        ("hosts", "localhost:1"), ("hardware of localhost", "Another CPU, 64 cores"),
    ],
)  # fmt: skip
def test_times_of_another_machine_or_version_are_not_mixed_in(tune, place, name, other):
    folder = place / "work"
    folder.mkdir()
    asked = {"host_list": None, "cluster": None, "only": [], "seed": 0, "oversubscribe": True,
             "allow_lossy": False}  # fmt: skip
    here = identity_here()
    assert name in here
    record = {"schema": 2, "asked": asked, "settings": {"train.device": "cpu", "launch.np": 2},
              "commit": "x"}  # fmt: skip
    (folder / "tune.json").write_text(json.dumps({**record, "machine": {**here, name: other}}))
    done = tune(*SIZES, "--dir", folder, "--dry-run")
    assert done.code == 2
    assert f"other versions, {name} is {here[name]!r} here; expected {other!r}" in done.err
    # Of a host that was never asked nothing is known to differ.
    (folder / "tune.json").write_text(
        json.dumps({**record, "machine": {**here, "hardware of localhost": None}})
    )
    assert tune(*SIZES, "--dir", folder, "--dry-run").code == 0


def test_names_are_completed():
    completer = ShellComplete(cli, {}, "hpctrain", "_HPCTRAIN_COMPLETE")
    found = completer.get_completions(["tune", "--only"], "comm.bucket_mb,HOR")
    assert [item.value for item in found] == ["comm.bucket_mb,HOROVOD_CYCLE_TIME"]


def test_the_plan_needs_no_torch(place):
    import subprocess
    import sys

    tiers.require("horovod")
    code = (
        "import sys; from hpctrain.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as ended: assert ended.code == 0, ended.code\n"
        "assert not {'torch', 'numpy', 'horovod'} & set(sys.modules), sorted(sys.modules)"
    )
    # The stand-in's flavour is Horovod's own or not: a model without an exchange asks nothing.
    words = ["tune", "--np", "1", "--set", "comm.backend=none", "--set", "train.device=cpu"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--dry-run"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
