"""What could lose track of machines that cost: crashes, a shell's variables, two people at once.

With a real Terraform and the stand-in for Google's provider.
"""

import json
import os
import shutil

import pytest

pytestmark = pytest.mark.needs("google-standin")
COMMON = ("--provider", "gcp", "--set", "project=p", "--set", "ssh_from_cidrs=198.51.100.7/32")


def things(home):
    """What exists at the stand-in."""
    path = home.path / "google" / "cloud.json"
    return set(json.loads(path.read_text())["things"]) if path.exists() else set()


@pytest.fixture
def cluster(home):
    """A cluster of one node that is up; gives its directory."""
    done = home.hpctrain("up", *COMMON, "--name", "one", "--nodes", "1", "--yes")
    assert done.code == 0, done.err
    assert things(home)
    return home.directory("one").path


def down_leaves_nothing(home):
    done = home.hpctrain("down", "--name", "one", "--yes")
    assert done.code == 0, done.err
    assert things(home) == set()
    assert not home.directory("one").path.exists()
    return done


def test_down_after_a_crash_between_the_old_folder_and_the_new(home, cluster):
    (cluster / "terraform").rename(cluster / "terraform.old")
    shutil.copytree(cluster / "terraform.old", cluster / "terraform.new", symlinks=True)
    down_leaves_nothing(home)


def test_up_after_such_a_crash(home, cluster):
    (cluster / "terraform").rename(cluster / "terraform.old")
    done = home.hpctrain("up", *COMMON, "--name", "one", "--yes")
    assert done.code == 0, done.err
    assert "nothing to do" in done.out
    assert not (cluster / "terraform.old").exists()
    down_leaves_nothing(home)


def test_without_terraforms_folder_the_state_is_kept(home, cluster):
    shutil.rmtree(cluster / "terraform")
    done = home.hpctrain("down", "--name", "one", "--yes")
    assert done.code == 1
    assert "got no main.tf.json; expected one. Nothing was removed. Make it anew:" in done.err
    assert (cluster / "terraform.tfstate").exists()
    assert things(home)
    assert home.hpctrain("up", *COMMON, "--name", "one", "--yes").code == 0
    down_leaves_nothing(home)


def test_without_a_state_its_backup_is_named(home, cluster):
    (cluster / "terraform.tfstate").rename(cluster / "terraform.tfstate.backup")
    done = home.hpctrain("down", "--name", "one", "--yes")
    assert done.code == 1
    assert "Nothing was removed. Put it back: cp " in done.err
    assert cluster.exists()


def test_variables_of_the_shell_do_not_hide_the_state(home, cluster, monkeypatch):
    monkeypatch.setenv("TF_DATA_DIR", str(home.path / "elsewhere"))
    monkeypatch.setenv("TF_WORKSPACE", "other")
    monkeypatch.setenv("TF_CLI_ARGS_plan", "-nonsense")
    done = home.hpctrain("up", *COMMON, "--name", "one", "--yes")
    assert done.code == 0, done.err
    assert "nothing to do" in done.out
    down_leaves_nothing(home)


@pytest.mark.parametrize("command", ["up", "down"])
def test_a_state_that_could_not_be_saved_stops_everything(home, cluster, command):
    errored = cluster / "terraform" / "errored.tfstate"
    errored.write_text("{}")
    words = COMMON if command == "up" else ()
    done = home.hpctrain(command, *words, "--name", "one", "--yes")
    assert done.code == 1
    assert f"terraform -chdir={cluster}/terraform state push errored.tfstate" in done.err
    assert errored.exists()
    assert things(home)


def test_a_state_that_cannot_be_read_is_not_an_empty_one(home, cluster, monkeypatch):
    from hpctrain.clusters.cloud import destroy

    monkeypatch.setattr(destroy, "state_count", lambda adapter: (None, None))
    done = home.hpctrain("down", "--name", "one", "--yes")
    assert done.code == 1
    assert "what is left is unknown, for the state cannot be read" in done.err
    assert cluster.exists()


def test_down_without_the_cache_of_providers(home, cluster):
    shutil.rmtree(cluster / "terraform" / ".terraform")
    done = down_leaves_nothing(home)
    assert "the cloud was not asked: Google's provider has no such question" in done.err


def test_of_two_first_ups_the_second_leaves_the_firsts_key_alone(home):
    from hpctrain.clusters.console import ClusterConsole
    from hpctrain.clusters.make import make_cluster, plan_cluster
    from hpctrain.clusters.provider import ClusterRequest
    from hpctrain.errors import ClusterError

    options = {"project": "p", "ssh_from_cidrs": "198.51.100.7/32"}
    request = ClusterRequest("one", "gcp", 1, options, dict(os.environ))
    planned = [plan_cluster(request), plan_cluster(request)]  # both were shown, both said yes
    console, folder = ClusterConsole(quiet=True), home.path / "work"
    make_cluster(planned[0][1], planned[0][0], console, folder)
    key = (home.directory("one").path / "id_ed25519").read_text()
    with pytest.raises(ClusterError, match="another hpctrain has made, changed or removed"):
        make_cluster(planned[1][1], planned[1][0], console, folder)
    assert (home.directory("one").path / "id_ed25519").read_text() == key
    assert home.directory("one").read().state == "up"
    down_leaves_nothing(home)


def test_outputs_that_an_interrupt_left_out_come_with_the_next_up(home, cluster):
    state = json.loads((cluster / "terraform.tfstate").read_text())
    (cluster / "terraform.tfstate").write_text(
        json.dumps({**state, "outputs": {}, "serial": state["serial"] + 1})
    )
    (cluster / "ssh_config").unlink()
    done = home.hpctrain("up", *COMMON, "--name", "one", "--yes")
    assert done.code == 0, done.err
    assert "nothing to do, what is known of the nodes changes" in done.out
    assert "Host one-0" in (cluster / "ssh_config").read_text()
    down_leaves_nothing(home)


def test_a_cluster_that_was_up_stays_in_use_while_an_up_fails(home, cluster):
    from hpctrain.clusters.overview import plan_ssh

    home.nodes.answers["nvidia-smi"] = (127, "", "nvidia-smi: not found")
    done = home.hpctrain("up", *COMMON, "--name", "one", "--nodes", "2", "--yes")
    assert done.code == 1
    assert home.directory("one").read().state == "up"
    assert plan_ssh("one", None, (), os.environ).argv[-1] == "one-0"
    home.nodes.answers.clear()
    done = home.hpctrain("status", "--name", "one")
    assert "the last `up` has not come to its end; go on:" in done.out
    assert home.hpctrain("up", *COMMON, "--name", "one", "--yes").code == 0
    assert "not come to its end" not in home.hpctrain("status", "--name", "one").out
    down_leaves_nothing(home)


def test_what_counts_at_creation_is_refused_later(home, cluster):
    before = (cluster / "cluster.json").read_text()
    words = ("--set", "disk_gb=300", "--set", "spot=true", "--set", "backend.gcs.bucket=b")
    done = home.hpctrain("up", *COMMON, "--name", "one", *words, "--yes")
    assert done.code == 2
    assert "backend: counts when a cluster is made, got {'gcs':" in done.err
    done = home.hpctrain("up", *COMMON, "--name", "one", *words[:4], "--yes")
    assert done.code == 2
    assert "disk_gb: counts when a cluster is made, got 300; expected 200, which one" in done.err
    assert "spot: counts when a cluster is made, got True; expected False" in done.err
    assert (cluster / "cluster.json").read_text() == before
