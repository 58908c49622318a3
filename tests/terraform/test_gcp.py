"""GCP as far as it can be carried without Google: hpctrain, a real Terraform, and a stand-in for
Google's provider that carries the published schema (tests/google_standin).

What passes here has no unknown argument, no wrong type, no missing or surplus block. It does not
show that Google would agree.
"""

import json
import threading

import pytest

pytestmark = pytest.mark.needs("google-standin")
COMMON = ("--provider", "gcp", "--set", "project=p", "--set", "ssh_from_cidrs=198.51.100.7/32")


def things(home):
    """What exists at the stand-in."""
    path = home.path / "google" / "cloud.json"
    return set(json.loads(path.read_text())["things"]) if path.exists() else set()


def machines(home):
    return sorted(each.rpartition("/")[2] for each in things(home) if "/instances/" in each)


def test_up_grow_and_down(home):
    """The cluster of two n1 with a T4 each; a third joins, and none is replaced."""
    done = home.hpctrain("up", *COMMON, "--name", "t4", "--yes")
    assert done.code == 0, done.err
    assert "2 nodes n1-standard-8 + 1 nvidia-tesla-t4 in us-central1-a" in done.out
    assert machines(home) == ["t4-0", "t4-1"]
    first = things(home)
    lines = home.directory("t4").hostfile.read_text().splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["slots=1 max_slots=1"] * 2
    assert "ProxyJump t4-0" in home.directory("t4").ssh_config.read_text()

    done = home.hpctrain("status", "--name", "t4")
    assert done.code == 0, done.err
    assert "while they run: about" in done.out

    done = home.hpctrain("plan", *COMMON, "--name", "t4")
    assert "nothing to do" in done.out
    done = home.hpctrain("up", *COMMON, "--name", "t4", "--nodes", "3", "--yes")
    assert done.code == 0, done.err
    assert "Terraform 1" in done.out
    assert ": 1 to create" in done.out
    assert machines(home) == ["t4-0", "t4-1", "t4-2"]
    assert first < things(home)

    done = home.hpctrain("down", "--name", "t4", "--yes")
    assert done.code == 0, done.err
    assert things(home) == set()
    assert not home.directory("t4").path.exists()


def test_a_refusal_half_way_says_what_exists_and_how_to_go_on(home):
    (home.path / "google").mkdir()
    (home.path / "google" / "refuse").write_text("half-1")
    done = home.hpctrain("up", *COMMON, "--name", "half", "--yes")
    assert done.code == 1
    assert "Quota 'GPUS_ALL_REGIONS' exceeded" in done.err
    assert "half: `up` stopped half-way." in done.err
    assert "exists:   1 nodes, 8 resources:" in done.err
    assert "costs:    about 0.76 USD an hour" in done.err
    assert "continue: hpctrain cluster up --provider gcp --name half" in done.err
    assert "destroy:  hpctrain cluster down --name half" in done.err
    assert home.directory("half").read().state == "creating"

    (home.path / "google" / "refuse").unlink()
    done = home.hpctrain("up", "--provider", "gcp", "--name", "half", "--yes")
    assert done.code == 0, done.err
    assert ": 1 to create" in done.out
    assert machines(home) == ["half-0", "half-1"]


def test_of_two_ups_of_one_name_at_once_the_second_is_refused(home):
    home.nodes.hold.clear()  # the first goes on waiting for its nodes
    ended = []

    def first():
        from hpctrain.clusters.console import ClusterConsole
        from hpctrain.clusters.make import make_cluster, plan_cluster

        directory, plan = plan_cluster(request())
        ended.append(make_cluster(plan, directory, ClusterConsole(quiet=True), home.path / "work"))

    def request():
        import os

        from hpctrain.clusters.provider import ClusterRequest

        options = {"project": "p", "ssh_from_cidrs": "198.51.100.7/32"}
        return ClusterRequest("twice", "gcp", 1, options, dict(os.environ))

    thread = threading.Thread(target=first)
    thread.start()
    try:
        import launching

        launching.wait_until(lambda: machines(home) == ["twice-0"], "the first machine")
        done = home.hpctrain("up", *COMMON, "--name", "twice", "--yes")
    finally:
        home.nodes.hold.set()
        thread.join()
    assert done.code == 1
    assert "another hpctrain is making, changing or removing this cluster just now" in done.err
    assert [record.state for record in ended] == ["up"]


def test_nodes_that_are_not_ready_in_time_are_named(home):
    home.nodes.answers["slow-1.*cd /var/lib/hpctrain"] = (255, "", "Connection timed out")
    asked = ("--name", "slow", "--set", "boot_timeout_s=0.01", "--yes")
    done = home.hpctrain("up", *COMMON, *asked)
    assert done.code == 1
    assert "slow-1: not ready within 0.01 s, got unreachable (Connection timed out)" in done.err
    assert "slow-0: not ready" not in done.err
    assert "costs:" in done.err


def test_different_versions_and_missing_gpus_are_found(home):
    home.nodes.gpus = 0
    home.nodes.answers["off-1.*pip list"] = (0, "python 3.10.13\ntorch==2.13.0\n", "")
    done = home.hpctrain("up", *COMMON, "--name", "off", "--yes")
    assert done.code == 1
    assert "versions of python differ: 3.10.12 on off-0, 3.10.13 on off-1" in done.err
    assert "off-0: GPUs, got 0; expected 1" in done.err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["ssh_from_cidrs=0.0.0.0/0"], "ssh_from_cidrs: opens ssh to everyone, got [0.0.0.0/0]"),
        (["machine_type=p9-huge"], "machine_type: unknown on gcp, got 'p9-huge'; expected one of"),
        (["zone=us-east-1a"], "zone: no zone of gcp, got 'us-east-1a'"),
    ],
)
def test_what_the_modules_refuse_is_said_in_their_words(home, settings, said):
    words = [word for setting in settings for word in ("--set", setting)]
    done = home.hpctrain("plan", *COMMON, "--name", "no", *words)
    assert done.code == 1
    assert f"error: {said}" in done.err
    assert "This was checked by" not in done.err
    assert not home.directory("no").path.exists()


def test_bad_credentials_are_said(home, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "wrong")
    done = home.hpctrain("plan", *COMMON, "--name", "no")
    assert done.code == 1
    assert "could not find default credentials" in done.err


def test_all_options_that_are_wrong_are_named_at_once(home):
    done = home.hpctrain("plan", "--provider", "gcp", "--set", "spott=true", "--set", "disk_gb=big")
    assert done.code == 2
    assert "spott: unknown option of gcp; expected another. Did you mean 'spot'?" in done.err
    assert "disk_gb: got 'big'" in done.err
    assert "ssh_from_cidrs: from where ssh is let in, got nothing" in done.err
    assert "project: got nothing" in done.err


def test_without_terraform_it_says_where_to_get_it(home, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    done = home.hpctrain("plan", *COMMON, "--name", "no")
    assert done.code == 1
    assert "terraform: not on PATH; expected 1.9 or newer. Install it:" in done.err
