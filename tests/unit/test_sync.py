"""What is sent to other hosts, and how a run on a head is worded; ssh and rsync are recorded."""

from pathlib import Path

import pytest

from hpctrain.clusters.cloud.access import NodeAccess
from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterNode, ClusterRecord
from hpctrain.clusters.from_outside import forwarded_arguments, start_from_outside
from hpctrain.clusters.head_run import project_folder, working_folder
from hpctrain.clusters.make import remove_cluster
from hpctrain.clusters.provider import DownPlan
from hpctrain.clusters.sync import Project, find_project, send_project
from hpctrain.clusters.unfetched import HeadRun, pending_runs, refuse_unfetched, remember
from hpctrain.errors import ClusterError, PlanError
from hpctrain.executor import RecordingExecutor
from hpctrain.launch.prepare import Asked


def checkout(root, tracked):
    """An executor for which `root` is a git checkout with these files."""
    return RecordingExecutor({
        "rev-parse": (0, f"{root}\n", ""),
        "ls-files": (0, "".join(f"{name}\0" for name in tracked), ""),
    })  # fmt: skip


def test_tracked_files_and_what_is_named(tmp_path):
    root = tmp_path / "repo"
    (root / "sub").mkdir(parents=True)
    for name in ("a.py", "sub/b c.py", "secret", "sub/data"):
        (root / name).touch()
    (tmp_path / "elsewhere").touch()
    named = [Path("data"), Path("python"), Path("../../elsewhere")]
    executor = checkout(root, ["a.py", "sub/b c.py", "deleted.py"])
    found = find_project(root / "sub", named, executor)
    assert found.paths == ("a.py", "sub/b c.py", "sub/data")
    assert found.outside == (str(tmp_path / "elsewhere"),)
    assert (project_folder(found), working_folder(found)) == (
        "hpctrain-work/repo", "hpctrain-work/repo/sub",
    )  # fmt: skip


def test_without_git_only_what_is_named(tmp_path):
    (tmp_path / "t.py").touch()
    (tmp_path / "other.py").touch()
    found = find_project(tmp_path, [Path("t.py")], RecordingExecutor())
    assert (found.root, found.folder, found.paths) == (tmp_path, Path("."), ("t.py",))


def test_hosts_that_did_not_get_it_are_all_named(tmp_path):
    executor = RecordingExecutor({
        r"b:": (12, "", "rsync: command not found"), r"-- c ": (255, "", "No route to host"),
        "": (0, "", ""),
    })  # fmt: skip
    project = Project(tmp_path, Path("."), ("t.py",))
    with pytest.raises(ClusterError) as wrong:
        send_project(NodeAccess(tmp_path / "ssh_config", executor), ["a", "b", "c"], project, "w")
    assert list(wrong.value.messages) == [
        "b: rsync: rsync: command not found. It needs rsync on both sides.",
        "c: cannot make w: No route to host.",
    ]


def test_the_same_words_on_the_head():
    asked = Asked(
        program=("python", "t.py", "--lr", "1"), np=8, config_name="demo", overrides=("a=1", "b=2"),
        name="r", resume=True, oversubscribe=True, save_signal=True,
        max_restarts=0, spares="n7,n8", min_np=4,
    )  # fmt: skip
    assert forwarded_arguments(asked) == [
        "--name", "r", "--runs-dir", "runs", "--np", "8", "--config", "demo", "--set", "a=1",
        "--set", "b=2", "--resume", "--oversubscribe", "--save-signal",
        "--max-restarts", "0", "--spares", "n7,n8", "--min-np", "4",
        "--", "python", "t.py", "--lr", "1",
    ]  # fmt: skip


def test_runs_that_were_not_fetched_are_remembered_once(tmp_path):
    directory = ClusterDirectory("c", tmp_path)
    directory.path.mkdir()
    refuse_unfetched(directory)
    run = HeadRun("r", "w", "runs", "/here/runs/r")
    remember(directory, run)
    remember(directory, run)
    assert pending_runs(directory) == [run]
    with pytest.raises(ClusterError, match=r"c: results were not fetched, got r; expected none\."):
        refuse_unfetched(directory)


def test_a_word_too_long_for_a_name_is_no_file(tmp_path):
    (tmp_path / "t.py").touch()
    named = [Path("x" * 5000), Path("a\0b"), Path("t.py")]
    assert find_project(tmp_path, named, RecordingExecutor()).paths == ("t.py",)


def test_hosts_beside_a_cluster_are_refused(tmp_path):
    record = ClusterRecord("c", "aws", 0.0, "up", (ClusterNode("c-0", "10.0.0.4", 1),))
    asked = Asked(program=("python", "t.py"), hosts_file=Path("mine"), cluster="c")
    with pytest.raises(PlanError, match="--cluster: names the hosts already, got --hosts mine"):
        start_from_outside((ClusterDirectory("c", tmp_path), record), asked, dry_run=True)


def test_a_damaged_file_of_a_run_is_named_and_keeps_the_cluster(tmp_path):
    directory = ClusterDirectory("c", tmp_path)
    (directory.path / "unfetched").mkdir(parents=True)
    (directory.path / "unfetched" / "r.json").write_text("{")
    with pytest.raises(ClusterError, match=r"unfetched/r\.json: cannot be read: .*cluster ssh"):
        refuse_unfetched(directory)


def test_no_run_starts_on_a_cluster_that_is_being_removed(tmp_path):
    directory = ClusterDirectory("c", tmp_path)
    directory.path.mkdir()
    directory.write(ClusterRecord("c", "aws", 0.0, "destroying"))
    with pytest.raises(ClusterError, match="it is being removed, got state destroying"):
        remember(directory, HeadRun("r", "w", "runs", "/here/runs/r"))
    assert pending_runs(directory) == []


def test_a_run_that_began_since_the_question_keeps_the_cluster(tmp_path):
    directory = ClusterDirectory("c", tmp_path)
    directory.path.mkdir()
    directory.write(ClusterRecord("c", "aws", 0.0, "up"))
    remember(directory, HeadRun("r", "w", "runs", "/here/runs/r"))
    with pytest.raises(ClusterError, match="results were not fetched, got r"):
        remove_cluster(None, DownPlan("c", ()), directory, None)
    assert directory.read().state == "up"
