"""What is known of a cloud cluster: by state, record and host keys; no Terraform is run."""

import json
import os

import pytest

pytest.importorskip("python_terraform")

from hpctrain.clusters.cloud.apply import (
    _forget_changed_nodes,
    begin_record,
    check_outputs,
    half_way_words,
)
from hpctrain.clusters.cloud.environ import own_environ
from hpctrain.clusters.cloud.leftovers import render_question
from hpctrain.clusters.cloud.settings import AT_CREATION, changed_settings, parse_settings
from hpctrain.clusters.cloud.state import adopt_scratch, find_folder, fingerprint, has_state
from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterNode, ClusterRecord
from hpctrain.clusters.overview import plan_ssh, read_cluster
from hpctrain.errors import ClusterError

NODES = (ClusterNode("c-0", "10.0.0.4", 2, "198.51.100.9"), ClusterNode("c-1", "10.0.0.5", 2))
IDS = {"c-0": "i-0", "c-1": "i-1"}


@pytest.fixture
def directory(tmp_path):
    made = ClusterDirectory("c", tmp_path / "state/hpctrain/clusters")
    made.path.mkdir(parents=True)
    return made


def record(state="up", nodes=NODES, **data):
    return ClusterRecord("c", "aws", 7.0, state, nodes, provider_data={"options": {}, **data})


@pytest.mark.parametrize(
    "name", ["terraform/main.tf.json", "terraform.old/x", "terraform.tfstate",
             "terraform.tfstate.backup"],
)  # fmt: skip
def test_any_trace_of_terraform_is_a_state(directory, name):
    assert not has_state(directory)
    (directory.path / name).parent.mkdir(exist_ok=True)
    (directory.path / name).touch()
    assert has_state(directory)


def test_a_backend_elsewhere_is_one_too(directory):
    directory.write(record())
    assert not has_state(directory)
    backend = {"backend": {"s3": {"bucket": "b"}}}
    directory.write(ClusterRecord("c", "aws", 7.0, "up", provider_data={"options": backend}))
    assert has_state(directory)
    with pytest.raises(ClusterError, match="Nothing was removed"):
        find_folder(directory)


@pytest.mark.parametrize("crash_at", range(3))
def test_a_crash_while_the_folder_is_exchanged_leaves_a_whole_one(
    directory, tmp_path, monkeypatch, crash_at
):
    old, scratch = directory.path / "terraform", tmp_path / "scratch"
    for folder in (old, scratch):
        folder.mkdir()
        (folder / "main.tf.json").write_text(folder.name)
    calls = iter(range(9))

    def crash(real):
        def call(*words, **more):
            if next(calls) == crash_at:
                raise KeyboardInterrupt
            return real(*words, **more)

        return call

    for module, name in ((__import__("shutil"), "copytree"), (os, "replace")):
        monkeypatch.setattr(module, name, crash(getattr(module, name)))
    with pytest.raises(KeyboardInterrupt):
        adopt_scratch(scratch, directory)
    monkeypatch.undo()
    assert (find_folder(directory) / "main.tf.json").read_text() in ("terraform", "scratch")
    adopt_scratch(scratch, directory)
    assert (find_folder(directory) / "main.tf.json").read_text() == "scratch"
    assert [path.name for path in directory.path.iterdir()] == ["terraform"]


def test_a_key_or_a_state_that_appeared_is_seen(directory):
    seen = [fingerprint(directory)]
    for name in ("id_ed25519", "terraform.tfstate"):
        (directory.path / name).write_text("x")
        seen.append(fingerprint(directory))
    assert len(set(seen)) == 3


def test_variables_that_lead_terraform_elsewhere_are_emptied():
    shell = {"TF_DATA_DIR": "/x", "TF_WORKSPACE": "w", "TF_CLI_ARGS": "-a", "TF_LOG": "debug"}
    made = own_environ({"TF_CLI_ARGS_plan": "-b", "TF_PLUGIN_CACHE_DIR": "/c"}, shell)
    assert {name for name, value in made.items() if value == ""} == {
        "TF_DATA_DIR", "TF_WORKSPACE", "TF_CLI_ARGS", "TF_CLI_ARGS_plan",
    }  # fmt: skip
    assert made["TF_PLUGIN_CACHE_DIR"] == "/c"


def test_a_cluster_that_was_up_stays_up_while_an_up_works():
    new = ClusterRecord("c", "aws", 9.0, "creating", provider_data={"nodes": 3})
    during = begin_record(new, record(instances=IDS))
    assert (during.state, during.nodes, during.created_s) == ("up", NODES, 7.0)
    assert during.provider_data == {"nodes": 3, "instances": IDS, "pending": True}
    assert begin_record(new, record("destroying")).state == "creating"
    assert begin_record(new, None) is new


@pytest.mark.parametrize("state", ["creating", "up", "destroying"])
def test_nodes_that_are_there_can_be_reached_in_any_state(directory, tmp_path, state):
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    directory.write(record(state, nodes=()))
    with pytest.raises(ClusterError, match=f"none of its nodes is known yet, got state {state}"):
        plan_ssh("c", None, (), environ)
    directory.write(record(state))
    directory.ssh_config.touch()
    assert plan_ssh("c", None, (), environ).argv[-1] == "c-0"
    if state != "up":
        with pytest.raises(ClusterError, match=f"got state {state}; expected up"):
            read_cluster("c", environ, whole=True)


def test_host_keys_go_with_the_machines_they_belonged_to(directory):
    known = directory.path / "known_hosts"
    text = "198.51.100.9 k A\n10.0.0.5,c-1 k B\n10.0.0.6 k C\n"

    def left(before, ids, nodes=NODES):
        known.write_text(text)
        _forget_changed_nodes(directory, before, nodes, ids)
        return known.read_text()

    assert left(record(instances=IDS), IDS) == text
    assert left(record(instances=IDS), {**IDS, "c-1": "i-9"}) == text.replace(
        "10.0.0.5,c-1 k B\n", ""
    )
    assert "198.51.100.9" not in left(record(instances=IDS), {**IDS, "c-0": "i-9"})
    grown = (*NODES, ClusterNode("c-2", "10.0.0.6", 2))
    assert "10.0.0.6" not in left(record(instances=IDS), {**IDS, "c-2": "i-2"}, grown)
    assert left(record(), IDS) == "10.0.0.6 k C\n"  # of none is known whose key it was


def test_outputs_that_are_missing_are_named():
    with pytest.raises(ClusterError, match=r"got no ssh_config, hostfile; expected all outputs"):
        check_outputs({"nodes": []}, "c")


def test_a_state_that_cannot_be_read_is_unknown_not_empty():
    words = half_way_words("c", "aws", None, "about 1 USD", stopped=False)
    assert "exists:   unknown: Terraform's state cannot be read" in words
    assert "costs:    about 1 USD if all nodes exist" in words
    assert "hpctrain cluster down --name c" in words


def test_settings_that_count_at_creation_are_named_one_by_one():
    old, new = (
        parse_settings("aws", {"ssh_from_cidrs": cidrs, "disk_gb": disk}, 2)
        for cidrs, disk in (("198.51.100.7/32", 200), ("203.0.113.0/24", 300))
    )
    assert changed_settings("c", old, new) == [
        "disk_gb: counts when a cluster is made, got 300; expected 200, which c was made with. "
        "Make another cluster, or take this one down first: hpctrain cluster down --name c"
    ]
    assert set(AT_CREATION) <= set(type(old).__dataclass_fields__)


def test_the_cloud_is_asked_by_tag_and_only_looked_at():
    root = {
        "terraform": {"required_version": ">= 1.9", "required_providers": {}, "backend": {}},
        "provider": {"aws": {"region": "us-east-1"}},
        "module": {"cluster": {}},
    }
    asked = render_question(root, "c")
    assert set(asked) == {"terraform", "provider", "data", "output"}
    assert "backend" not in asked["terraform"]
    assert all('"hpctrain-cluster": "c"' in json.dumps(each) for each in asked["data"].values())
