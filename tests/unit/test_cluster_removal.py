"""What `down` removes, and what it never does: the files of clouds, of others, of nobody known."""

import pytest

from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterRecord, clusters_folder
from hpctrain.clusters.lab import down, owner, plan_down
from hpctrain.clusters.lab.facts import gather_lab_facts
from hpctrain.clusters.make import plan_removal
from hpctrain.clusters.provider import DownPlan
from hpctrain.errors import ClusterError

GONE = ClusterRecord("far", "lab", 0.0, "up", provider_data={"options": {}})


@pytest.fixture
def environ(tmp_path):
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def directory(environ):
    made = ClusterDirectory("far", clusters_folder(environ))
    with made.locked():
        made.write(GONE)
    return made


@pytest.fixture(autouse=True)
def nothing_in_the_kernel(monkeypatch):
    monkeypatch.setattr("hpctrain.clusters.lab.find.find_spaces", list)
    monkeypatch.setattr("hpctrain.clusters.lab.find_names", frozenset)


def contents(directory):
    return sorted(path.name for path in directory.path.rglob("*"))


@pytest.mark.parametrize("text", ["", "{", '{"schema": 2, "provider": "aws"}', None])
def test_a_directory_that_nobody_knows_is_left_alone(directory, environ, text):
    (directory.path / "cluster.json").unlink()
    if text is not None:
        (directory.path / "cluster.json").write_text(text)
    (directory.path / "anything").touch()
    before = contents(directory)
    with pytest.raises(ClusterError, match=r"Nothing was removed.*by hand: rm -r /"):
        plan_removal("far", environ)
    assert contents(directory) == before


def test_a_damaged_record_of_a_lab_that_the_kernel_knows_is_removed_by_name(
    directory, environ, monkeypatch
):
    (directory.path / "cluster.json").write_text("{")
    monkeypatch.setattr("hpctrain.clusters.lab.find_names", lambda: frozenset({"far"}))
    provider, _, _ = plan_removal("far", environ)
    assert provider.__name__ == "hpctrain.clusters.lab"


def test_a_directory_in_which_nothing_was_written_is_removed(directory, environ):
    (directory.path / "cluster.json").rename(directory.path / ".cluster.json.tmp")
    provider, _, _ = plan_removal("far", environ)
    assert provider.__name__ == "hpctrain.clusters.lab"


@pytest.mark.parametrize(
    "file",
    ["terraform/main.tf.json", "terraform.tfstate", "terraform.tfstate.backup", "id_ed25519",
     "key.pem", "up.tfplan"],
)  # fmt: skip
def test_a_lab_never_takes_or_removes_what_a_cloud_needs(directory, environ, file, monkeypatch):
    """Whatever the record says, and whoever finds it to be a lab's."""
    monkeypatch.setattr("hpctrain.clusters.lab.facts.check_machine", lambda environ: None)
    monkeypatch.setattr("hpctrain.clusters.lab.facts.check_root", lambda: None)
    (directory.path / file).parent.mkdir(exist_ok=True)
    (directory.path / file).touch()
    before = contents(directory)
    for change in (
        lambda: plan_down(directory),
        lambda: down(DownPlan("far", ()), directory, None),
        lambda: gather_lab_facts(directory, environ, None),
    ):
        with pytest.raises(ClusterError, match=r"this is no lab's, got .*; expected.* stays"):
            change()
    assert contents(directory) == before


@pytest.fixture
def links(tmp_path, monkeypatch):
    folder = tmp_path / "links"
    (folder / "hpc-far").mkdir(parents=True)
    monkeypatch.setattr("hpctrain.clusters.lab.find.LINKS", folder)
    return folder


@pytest.mark.parametrize("alias", [None, "", "uplink of the office", "hpctrain lab farther in /x"])
def test_a_link_is_ours_by_its_alias_not_by_its_name(links, alias):
    from hpctrain.clusters.lab.find import has_foreign_link, has_machine_link

    assert not has_foreign_link("other")
    if alias is not None:
        (links / "hpc-far" / "ifalias").write_text(f"{alias}\n")
    assert has_foreign_link("far")
    assert not has_machine_link("far")
    (links / "hpc-far" / "ifalias").write_text("hpctrain lab far in /state\n")
    assert has_machine_link("far")
    assert not has_foreign_link("far")


def test_whose_a_lab_is(links, directory, tmp_path, monkeypatch):
    alias = links / "hpc-far" / "ifalias"
    runs = [object()]
    monkeypatch.setattr(owner, "find_processes", lambda lab: runs)
    alias.write_text(f"hpctrain lab far in {directory.path}\n")
    assert owner.find_other_owner(directory) is None
    (tmp_path / "by-another-way").symlink_to(directory.path)
    alias.write_text(f"hpctrain lab far in {tmp_path}/by-another-way\n")
    assert owner.find_other_owner(directory) is None
    alias.write_text("hpctrain lab far in /home/eve/.local/state/hpctrain/clusters/far\n")
    with pytest.raises(ClusterError, match=r"XDG_STATE_HOME=/home/eve/.local/state hpc"):
        owner.refuse_others_lab(directory)
    runs.clear()  # left over by a crash: anybody may clear it away
    owner.refuse_others_lab(directory)


def test_a_name_is_held_by_one_on_the_whole_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "NAME_LOCKS", tmp_path / "locks")
    monkeypatch.setattr(owner, "LOCK_PATIENCE_S", 0)
    refused = pytest.raises(ClusterError, match="from another state folder")
    with owner.holding_name("far"), owner.holding_name("near"), refused:
        owner.holding_name("far").__enter__()
    assert not (tmp_path / "locks").exists()
