"""The commit that a run is recorded with, read without git: compared with git's own word."""

import subprocess

import pytest

from hpctrain.launch.git_commit import read_git_commit


def git(folder, *words):
    argv = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    done = subprocess.run([*argv, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    return tmp_path


def test_on_a_branch_packed_and_detached(repository):
    head = git(repository, "rev-parse", "HEAD")
    assert read_git_commit(repository / ".git") == head
    git(repository, "pack-refs", "--all")
    assert read_git_commit(repository / ".git") == head
    git(repository, "checkout", "-q", "--detach")
    assert read_git_commit(repository / ".git") == head


def test_in_a_worktree(repository, tmp_path):
    git(repository, "worktree", "add", "-q", "-b", "side", "side")
    git(repository / "side", "commit", "-q", "--allow-empty", "-m", "two")
    head = git(repository / "side", "rev-parse", "HEAD")
    assert read_git_commit(repository / "side" / ".git") == head
    assert read_git_commit(repository / ".git") != head


def test_without_a_commit(tmp_path):
    git(tmp_path, "init", "-q")
    assert read_git_commit(tmp_path / ".git") is None
