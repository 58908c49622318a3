"""`hpctrain bench allreduce` on the command line: what is refused, and what would run."""

import itertools
import json

import pytest

from hpctrain.bench.allreduce.measure import plan_allreduce_trial
from hpctrain.bench.allreduce.sizes import (
    DEFAULT_SIZES,
    parse_sizes,
    plan_allreduce,
    plan_from_words,
    render_size,
)
from hpctrain.bench.trial import plan_trial
from hpctrain.cli import main
from hpctrain.errors import ConfigError

MPIRUN = '#!/bin/sh\necho "mpirun (Open MPI) 5.0.11"\n'


@pytest.fixture
def hpctrain(tmp_path, monkeypatch, capsys):
    """Run the command line in this process, with an mpirun that says only who it is."""
    mpirun = tmp_path / "mpirun"
    mpirun.write_text(MPIRUN)
    mpirun.chmod(0o755)
    monkeypatch.setenv("HPCTRAIN_MPIRUN", str(mpirun))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(["bench", "allreduce", *words])
        return (ended.value.code, *capsys.readouterr())

    return run


def test_sizes_are_those_of_the_definition():
    assert (DEFAULT_SIZES[0], DEFAULT_SIZES[-1]) == (4, 256 << 20)
    ratios = [b / a for a, b in itertools.pairwise(DEFAULT_SIZES)]
    assert set(ratios) == {4.0}
    assert parse_sizes(",".join(map(render_size, DEFAULT_SIZES))) == DEFAULT_SIZES


def test_sizes_are_sorted_and_each_once():
    plan = plan_allreduce([1024, 4, 1024], ["torch", "torch"], 5, 10.0)
    assert (plan.sizes, plan.backends, plan.points) == ((4, 1024), ("torch",), 2)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        plan_from_words("4,x,7,-4,1e3,0,9999999G,," + "9" * 400, "hovorod,nccl", 1, float("nan"))
    text = "\n".join(caught.value.messages)
    for got in ("'x'", "7 bytes", "'-4'", "'1e3'", "0 bytes", "10737417166258176 bytes", "''",
                "'hovorod'", "'nccl'", "got 1;", "got nan s"):  # fmt: skip
        assert f"got {got}" in text or got in text, got
    assert "Did you mean 'horovod'?" in text
    assert len(caught.value.messages) == 12


def test_no_backend_and_no_sizes_are_refused():
    with pytest.raises(ConfigError, match="--backends: got none"):
        plan_from_words(None, " , ", 5, 10.0)
    with pytest.raises(ConfigError, match="--sizes: nothing to measure"):
        plan_allreduce([], ["torch"], 5, 10.0)


def test_the_launch_carries_the_whole_plan(tmp_path):
    plan = plan_allreduce([4, 1 << 20], ["torch", "mpi4py"], 7, 12.5)
    trial = plan_allreduce_trial(plan, runs_dir=tmp_path, name="a", np=3, oversubscribe=True)
    argv = plan_trial(trial).argv
    words = argv[argv.index("hpctrain.bench.allreduce.worker") + 1 :]
    asked = dict(zip(words[::2], words[1::2], strict=True))
    assert asked.pop("--control") in ("mpi4py", "horovod", "torch")
    assert asked == {"--device": "auto", "--backends": "torch,mpi4py", "--sizes": "4,1048576",
                     "--repeats": "7", "--budget": "12.5"}  # fmt: skip
    assert trial.timeout_s > plan.longest_s
    assert argv[argv.index("--np") + 1] == "3"
    assert "--oversubscribe" in argv


def test_a_dry_run_starts_nothing_and_says_how_long_it_would_take(hpctrain, tmp_path):
    code, out, err = hpctrain("--np", "1", "--sizes", "4,1M", "--dry-run")
    assert code == 0
    assert "--sizes 4,1048576" in out
    assert "2 sizes from 4 to 1M bytes, horovod, mpi4py and torch, 1 rank: about 70 s" in err
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_as_json_has_the_command(hpctrain):
    code, out, _ = hpctrain("-H", "n1:2,n2:2", "--budget", "20", "--dry-run", "--json")
    record = json.loads(out)
    assert (code, record["np"], record["longest_s"]) == (0, 4, 30.0)
    assert record["sizes"] == list(DEFAULT_SIZES)
    assert "hpctrain.bench.allreduce.worker" in record["command"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--np", "4", "-H", "n1:2"], "more ranks than slots, got 4"),
        (["--hosts", "missing"], "missing: cannot be read"),
        (["--hosts", "f", "-H", "a:1"], "--hosts and -H are both given"),
        (["--np", "1", "--set", "launch.subnett=1"], "Did you mean 'subnet'?"),
        (["--np", "1", "--name", "../x"], "../x"),
        (["--np", "1", "--sizes", "5"], "got 5 bytes"),
        (["--np", "1", "--cluster", "no-such"], "no-such"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(hpctrain, tmp_path, words, message):
    code, _, err = hpctrain(*words)
    assert code == 2
    assert message in err
    assert not (tmp_path / "runs").exists()


def test_a_cluster_that_mpirun_cannot_reach_is_refused_with_the_way_in(hpctrain, monkeypatch):
    from hpctrain.clusters import from_outside

    monkeypatch.setattr(from_outside, "find_outside_cluster", lambda name, environ: (name, None))
    code, _, err = hpctrain("--cluster", "far")
    assert code == 2
    assert "hpctrain cluster ssh --name far" in err
