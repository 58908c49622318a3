"""What was typed about a cluster: file, --set and flags on top of each other; the command line."""

import pytest

from hpctrain.cli import main
from hpctrain.clusters.request import merge_options, read_request, split_node_values
from hpctrain.errors import ConfigError

FILE = """
name = "wide"
nodes = 4
latency = "1ms"
[node.n2]
latency = "5ms"
"""


def read(tmp_path, text=FILE, overrides=(), flags=None, **more):
    path = tmp_path / "lab.toml"
    path.write_text(text)
    given = {"provider": None, "name": None, "nodes": None, **more}
    return read_request(config=path, overrides=overrides, flags=flags or {}, environ={}, **given)


def test_file_then_set_then_flags(tmp_path):
    request = read(
        tmp_path,
        overrides=["latency=2ms", "slots=8", "node.n3.loss=1%", "hide=['a']"],
        flags={"latency": "3ms", "node": {"n2": {"bandwidth": "1gbit"}}},
        nodes=3,
    )
    assert (request.name, request.provider, request.nodes) == ("wide", "lab", 3)
    assert request.options == {
        "latency": "3ms", "slots": 8, "hide": ["a"],
        "node": {"n2": {"latency": "5ms", "bandwidth": "1gbit"}, "n3": {"loss": "1%"}},
    }  # fmt: skip


def test_the_name_is_the_providers_by_default(tmp_path):
    assert read(tmp_path, "").name == "lab"


def test_everything_wrong_is_said_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "nodes = 0", overrides=["x", "=1"], provider="labb", name="A B")
    text = "\n".join(caught.value.messages)
    assert len(caught.value.messages) == 5
    assert "Did you mean 'lab'?" in text


@pytest.mark.parametrize("text", ["nodes =", "\xff"])
def test_a_file_that_is_none(tmp_path, text):
    (tmp_path / "lab.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_request(
            provider=None, name=None, nodes=None, config=tmp_path / "lab.toml", overrides=(),
            flags={}, environ={},
        )  # fmt: skip


def test_flags_of_single_nodes():
    flags = [
        split_node_values("bandwidth", ["1gbit", "n2=50mbit", "2gbit"]),
        split_node_values("loss", ["n2=1%"]),
    ]
    assert merge_options(flags) == {
        "bandwidth": "2gbit", "node": {"n2": {"bandwidth": "50mbit", "loss": "1%"}},
    }  # fmt: skip


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["cluster", *arguments])
    captured = capsys.readouterr()
    return ended.value.code, captured.out + captured.err


@pytest.fixture
def empty(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("hpctrain.clusters.lab.find.find_spaces", list)
    return tmp_path


@pytest.mark.usefixtures("empty")
def test_where_there_is_no_cluster(capsys):
    code, said = run(capsys, "status")
    assert (code, said) == (0, "no cluster. Make one: hpctrain cluster up\n")
    for arguments in (["hosts"], ["ssh", "n1"], ["fault", "n1", "drop"], ["down"],
                      ["status", "--name", "lab"]):  # fmt: skip
        code, said = run(capsys, *arguments)
        assert code == 2, said
        assert "no such cluster, got 'lab'" in said


@pytest.mark.usefixtures("empty")
def test_a_machine_without_root(capsys, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    code, said = run(capsys, "up")
    assert code == 1
    assert "need root" in said
    assert "hpctrain run --np 4" in said


def test_faults_are_checked_before_anything_is_touched(capsys):
    code, said = run(capsys, "fault", "n1", "explode")
    assert code == 2
    assert "no such fault, got 'explode'" in said


def test_a_record_that_cannot_be_read_is_shown(capsys, empty):
    folder = empty / "hpctrain" / "clusters" / "lab"
    folder.mkdir(parents=True)
    (folder / "cluster.json").write_text("{")
    code, said = run(capsys, "status")
    assert code == 1
    assert "unreadable" in said
    assert "hpctrain cluster down --name lab" in said


def test_another_providers_name(capsys, empty):
    from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterRecord, clusters_folder

    directory = ClusterDirectory("lab", clusters_folder({"XDG_STATE_HOME": str(empty)}))
    with directory.locked():
        directory.write(ClusterRecord("lab", "elsewhere", 0.0, "up"))
    code, said = run(capsys, "up")
    assert code == 2
    assert "is a cluster of elsewhere" in said
    code, said = run(capsys, "fault", "n1", "drop")
    assert "only a lab's nodes can be disturbed" in said
