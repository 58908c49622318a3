"""Checkpoints on hosts that do not share a file system: each has a folder of runs of its own."""

import contextlib
import json
import subprocess
import sys
import uuid

import launching
import pytest
from nodes import nodes_up
from small_training import SETTINGS, as_options

pytestmark = pytest.mark.needs("mpirun", "horovod", "torch")

SAVING = {**SETTINGS, "data.path": "data", "train.steps": 6, "checkpoint.every_steps": 2}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    with nodes_up(tmp_path_factory.mktemp("nodes")) as up:
        text = up.folder / "text.txt"
        text.write_text("to be or not to be that is the question\n" * 4000)
        prepare = [sys.executable, "-m", "hpctrain", "data", "prepare", "--source", str(text)]
        subprocess.run(
            [*prepare, "--tokenizer", "bytes", "--validation-fraction", "0.1", "--out", "data"],
            cwd=up.folder, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        (up.folder / "runs").mkdir()
        yield up


@pytest.fixture(scope="module")
def undisturbed(nodes):
    """The losses of one rank that does the same: six steps, and two more."""
    for more in ({}, {"train.steps": 8}):
        words = as_options({**SAVING, **more})
        resume = ["--resume"] if more else []
        done = launching.run(nodes.folder, "--np", "1", *resume, *words, name="undisturbed")
        assert done.returncode == 0, done.stderr
    return steps(done)


@pytest.fixture
def name():
    return f"t-{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def runs_of_their_own(nodes, *names):
    """Let these nodes see an empty folder of runs, which is theirs alone."""
    for node in names:
        nodes.check_output(node, "mount", "-t", "tmpfs", "tmpfs", str(nodes.folder / "runs"))
    try:
        yield
    finally:
        for node in names:
            nodes.check_output(node, "umount", str(nodes.folder / "runs"))


def train(nodes, name, *arguments, **more):
    settings = as_options({**SAVING, **more})
    return nodes.run("--hosts", str(nodes.hostfile), *arguments, *settings, name=name)


def saved(path):
    """Return the names of the files of a run's checkpoints, with what they hold."""
    files = [file for file in (path / "checkpoints").rglob("[!.]*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def steps(done):
    return {e["step"]: e["loss"] for e in done.events if e["event"] == "step"}


def test_a_sharded_optimizer_is_refused_before_its_first_step(nodes, name):
    with runs_of_their_own(nodes, "n2"):
        done = train(nodes, name, **{"optim.sharded": "true"})
    assert done.returncode == 1
    (message,) = [
        line for line in done.stderr.splitlines() if "seen by" in line and "|" not in line
    ]
    assert f"runs/{name}/checkpoints: seen by 2 of 4 ranks" in message
    assert "a file system that all hosts share" in message
    assert "set optim.sharded=false or checkpoint.save=off" in message
    assert not steps(done)
    without = {"optim.sharded": "true", "checkpoint.save": "off"}
    with runs_of_their_own(nodes, "n2"):
        done = train(nodes, f"{name}-off", **without)
    assert done.returncode == 0, done.stderr
    assert len(steps(done)) == 6


@pytest.mark.parametrize("resume", ["auto", "none"])
def test_a_refusal_leaves_the_checkpoints_as_they_are(nodes, name, resume):
    first = train(nodes, name, **{"optim.sharded": "true"})
    assert first.returncode == 0, first.stderr
    before = saved(first.path)
    assert "checkpoints/latest" in before
    more = {"optim.sharded": "true", "train.steps": 8, "checkpoint.resume": resume}
    with runs_of_their_own(nodes, "n2"):
        refused = train(nodes, name, "--resume", **more)
    assert refused.returncode == 1
    assert "a file system that all hosts share" in refused.stderr
    assert saved(first.path) == before
    again = train(nodes, name, "--resume", **{**more, "checkpoint.resume": "auto"})
    assert again.returncode == 0, again.stderr
    assert sorted(steps(again)) == list(range(1, 9))


@pytest.mark.parametrize("alone", [("n2",), ("n1",), ("n1", "n2")], ids="+".join)
def test_without_a_shared_folder_rank_0_s_host_has_them_all(nodes, name, alone, undisturbed):
    with runs_of_their_own(nodes, *alone):
        done = train(nodes, name)
        assert done.returncode == 0, done.stderr
        path = nodes.folder / "runs" / name / "checkpoints"
        shown = nodes.check_output(
            "n1", "cat", f"{path}/latest", f"{path}/step-00000006/index.json"
        )
        assert shown.startswith("step-00000006\n")
        index = json.loads(shown.partition("\n")[2])["index"]
        assert sorted(index["files"]) == ["rank-00000.safetensors", "rank-00001.safetensors"]
        more = train(nodes, name, "--resume", **{"train.steps": 8})
        assert more.returncode == 0, more.stderr
        assert f"resumed    {path}/step-00000006: step 6, " in more.stdout
    assert steps(more) == pytest.approx(undisturbed, rel=1e-4)
