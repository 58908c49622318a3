"""What a lab must not take or lose: links of others, labs of others, disks with checkpoints."""

import os
import subprocess

import pytest
from labs import Lab, lab_up, remove

from hpctrain.clusters.lab.remove import remove_lab

SBIN = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def ip(*words):
    return subprocess.run(
        ["ip", *words], capture_output=True, text=True, check=True, env=SBIN
    ).stdout  # fmt: skip


@pytest.fixture
def foreign_link(tmp_path):
    lab = Lab(tmp_path)
    name = f"hpc-{lab.name}"
    ip("link", "add", name, "type", "veth", "peer", "name", f"x{lab.name}")
    yield lab, name
    lab.try_cluster("down", "--yes")
    ip("link", "del", name)


def test_a_link_of_somebody_elses_stays(foreign_link):
    lab, name = foreign_link
    done = lab.try_cluster("up")
    assert done.returncode == 1
    assert f"{name}: this machine has a link of this name that is not this lab's" in done.stderr
    assert lab.try_cluster("down").returncode == 2  # there is nothing of this name
    # A lab that has come to stand beside such a link goes without it.
    ip("netns", "add", f"hpctrain.{lab.name}.switch")
    assert lab.status()["state"] == "leftover"
    lab.cluster("down")
    assert name in os.listdir("/sys/class/net")
    assert f"hpctrain.{lab.name}.switch" not in os.listdir("/run/netns")


def test_a_lab_of_another_user_stays(tmp_path):
    for folder in ("ada", "eve"):
        (tmp_path / folder).mkdir()
    with lab_up(tmp_path / "ada", "--nodes", "1") as hers:
        before, other = hers.inits(), Lab(tmp_path / "eve", hers.name)
        hint = f"XDG_STATE_HOME={hers.env['XDG_STATE_HOME']} hpctrain cluster down"
        for lost in ("nothing", "the link"):
            if lost == "the link":
                ip("link", "del", f"hpc-{hers.name}")
            for verb in ("plan", "up", "down"):
                done = other.try_cluster(verb)
                assert done.returncode == 1, done
                assert "is another's" in done.stderr
                assert hint in done.stderr
            assert other.status()["state"] == "another's"
            assert hers.inits() == before
        assert not other.path.exists()


def test_what_is_left_of_anothers_lab_does_not_stay_for_ever(tmp_path):
    for folder in ("ada", "eve"):
        (tmp_path / folder).mkdir()
    hers = Lab(tmp_path / "ada")
    other = Lab(tmp_path / "eve", hers.name)
    try:
        hers.cluster("up", "--nodes", "1")
        hers.cluster("fault", "n1", "poweroff")
        other.cluster("up", "--nodes", "1")
        assert other.states() == {"n1": "up"}
        done = hers.try_cluster("fault", "n1", "poweroff")
        assert "is another's" in done.stderr
        assert other.states() == {"n1": "up"}
    finally:
        other.cluster("down")
        remove(hers)


@pytest.fixture
def trained(tmp_path):
    """A lab with private disks, on one of which something was written."""
    (tmp_path / "runs").mkdir()
    with lab_up(tmp_path, "--private-disk") as lab:
        lab.on("n1", f"echo 1 > {tmp_path}/runs/checkpoint")
        if not list((lab.path / "nodes").glob("n1/disk/*/checkpoint")):
            pytest.skip("an overlay cannot lie on this disk: it is in memory, and gone at any rate")
        yield lab


def test_private_disks_outlive_a_restart_of_this_machine(trained, tmp_path):
    remove_lab(trained.name, os.environ)  # as a restart does: only the directory is left
    assert trained.status()["state"] == "gone"
    assert "private disks of an earlier lab are kept: n1" in trained.cluster("up", "--private-disk")
    assert trained.on("n1", f"cat {tmp_path}/runs/checkpoint") == "1"


def test_private_disks_are_never_removed_unasked(trained, tmp_path):
    said = "Remove the private disk"
    done = trained.try_cluster("down")
    assert (done.returncode, said in done.stderr) == (130, True), done
    assert "with all that was written there" in trained.cluster("down", "--dry-run")
    done = trained.try_cluster("up", "--nodes", "1")
    assert "the private disk of n2" in done.stdout
    assert (done.returncode, said in done.stdout) == (130, True), done
    remove_lab(trained.name, os.environ)
    done = trained.try_cluster("up")
    assert (done.returncode, said in done.stdout) == (130, True), done
    assert [path.read_text() for path in trained.path.rglob("checkpoint")] == ["1\n"]
    trained.cluster("up", "--yes")
    assert not list(trained.path.rglob("checkpoint"))
