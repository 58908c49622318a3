"""A cluster's own directory, its lock, and the link to its hostfile."""

import json
import os
import stat

import pytest

from hpctrain.clusters.cluster_dir import (
    ClusterDirectory,
    ClusterNode,
    ClusterRecord,
    clusters_folder,
    find_cluster,
    list_clusters,
)
from hpctrain.clusters.hostfile_link import link_hostfile, unlink_hostfile
from hpctrain.errors import ClusterError, ConfigError

RECORD = ClusterRecord(
    name="lab",
    provider="lab",
    created_s=1.5,
    state="up",
    nodes=(ClusterNode("lab-n1", "10.0.0.11", 2), ClusterNode("lab-n2", "10.0.0.12", 2, "1.2.3.4")),
    reachable_from_here=True,
    hostfile_links=("/somewhere/hostfile",),
    provider_data={"subnet": "10.0.0.0/24"},
)


@pytest.fixture
def environ(tmp_path):
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def directory(environ):
    return ClusterDirectory("lab", clusters_folder(environ))


def make(environ, *names):
    for name in names:
        directory = ClusterDirectory(name, clusters_folder(environ))
        with directory.locked():
            directory.write(RECORD)


def test_a_record_comes_back_as_it_was_and_is_nobody_elses(directory):
    assert directory.read() is None
    with directory.locked():
        directory.write(RECORD)
    assert directory.read() == RECORD
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory.path / "cluster.json").stat().st_mode) == 0o600
    assert json.loads((directory.path / "cluster.json").read_text())["schema"] == 1


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 2}', "[]", '{"schema": 1, "state": "?"}'])
def test_a_record_that_cannot_be_understood_says_how_to_clean_up(directory, text):
    with directory.locked():
        directory.write_text("cluster.json", text)
    with pytest.raises(ClusterError, match="hpctrain cluster down --name lab"):
        directory.read()


def test_two_at_once(directory):
    again = ClusterDirectory("lab", directory.path.parent)
    with directory.locked():
        assert again.is_locked()
        with pytest.raises(ClusterError, match="another hpctrain"), again.locked():
            pass
    assert not again.is_locked()
    with again.locked():
        pass
    assert not directory.path.exists()  # nothing was written: nothing is left


def test_removing_under_the_lock_leaves_nothing(directory):
    with directory.locked():
        directory.write(RECORD)
        directory.remove()
    assert not directory.path.exists()


def test_the_end_of_a_lock_leaves_the_next_holders_directory_alone(directory, monkeypatch):
    again = ClusterDirectory("lab", directory.path.parent)
    following, close = again.locked(), os.close

    def close_and_let_the_next_one_in(descriptor):
        monkeypatch.setattr("os.close", close)
        close(descriptor)
        following.__enter__()

    with directory.locked():
        monkeypatch.setattr("os.close", close_and_let_the_next_one_in)
    again.write(RECORD)
    assert directory.is_locked()
    following.__exit__(None, None, None)
    assert again.read() == RECORD


def test_a_directory_that_was_removed_and_made_again_is_not_ours(directory):
    again = ClusterDirectory("lab", directory.path.parent)
    held = directory.locked()
    held.__enter__()
    directory.remove()
    with again.locked():
        held.__exit__(None, None, None)
        assert directory.is_locked()
        again.write(RECORD)
    assert again.read() == RECORD


@pytest.mark.parametrize("name", ["", "Lab", "1lab", "a/b", "..", "-a", "a-", "a" * 33, "a b"])
def test_names_that_are_none(name, environ):
    with pytest.raises(ConfigError, match="no name for a cluster"):
        ClusterDirectory(name, clusters_folder(environ))


def test_listing_and_finding(environ):
    assert list_clusters(environ) == []
    with pytest.raises(ConfigError, match="there is none"):
        find_cluster("lab", environ)
    make(environ, "lab", "other")
    assert [cluster.name for cluster in list_clusters(environ)] == ["lab", "other"]
    assert find_cluster("other", environ).read() == RECORD
    with pytest.raises(ConfigError, match=r"expected one of lab, other.*Did you mean 'other'"):
        find_cluster("othr", environ)


def test_a_relative_state_folder_does_not_count():
    environ = {"XDG_STATE_HOME": "relative", "HOME": "/home/ada"}
    assert str(clusters_folder(environ)) == "/home/ada/.local/state/hpctrain/clusters"


def test_the_link_to_the_newest_hostfile(tmp_path):
    old, new = tmp_path / "a" / "hostfile", tmp_path / "b" / "hostfile"
    assert link_hostfile(old, tmp_path) == (tmp_path / "hostfile", "")
    link, warning = link_hostfile(new, tmp_path)
    assert (link.readlink(), warning) == (new, "")
    unlink_hostfile(old, [link])  # it is another cluster's by now
    assert link.is_symlink()
    unlink_hostfile(new, [link])
    assert not link.is_symlink()


def test_a_hostfile_of_ones_own_is_never_replaced(tmp_path):
    own = tmp_path / "hostfile"
    own.write_text("node1\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "hostfile").symlink_to(own)
    link, warning = link_hostfile(tmp_path / "x", tmp_path)
    assert link is None
    assert "stays as it is" in warning
    link, warning = link_hostfile(tmp_path / "clusters" / "x" / "hostfile", tmp_path / "b")
    assert link is None
    unlink_hostfile(tmp_path / "x", [own])
    assert own.read_text() == "node1\n"
