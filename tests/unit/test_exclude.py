"""`--exclude-file`: which hosts are left, and what is said about names that are none."""

import pytest

from hpctrain.clusters.from_outside import forwarded_arguments
from hpctrain.errors import HostfileError, PlanError
from hpctrain.hosts import parse_host_list
from hpctrain.launch.exclude import exclude_hosts, parse_excluded
from hpctrain.launch.prepare import Asked, prepare_request

HOSTS = parse_host_list("n1:2,n2:2,n3:2")


def names(host_list):
    return [host.name for host in host_list.hosts]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("n2\n", ["n1", "n3"]),
        ("n2 slots=2  # as in a hostfile\n\nn3\n", ["n1"]),
        ("n[2-3]", ["n1"]),
        ("", ["n1", "n2", "n3"]),
        ("# nobody failed\n", ["n1", "n2", "n3"]),
    ],
)
def test_hosts_in_the_file_are_left_out(tmp_path, text, left):
    (tmp_path / "bad").write_text(text)
    found = exclude_hosts(HOSTS, tmp_path / "bad")
    assert names(found) == left
    assert found.warnings == ()
    assert [host.slots for host in found.hosts] == [2] * len(left)


def test_a_name_that_is_no_host_is_a_warning(tmp_path):
    (tmp_path / "bad").write_text("n2\nnode3\n")
    found = exclude_hosts(parse_host_list("node1,node2,n2"), tmp_path / "bad")
    assert names(found) == ["node1", "node2"]
    (warning,) = found.warnings
    assert "node3 is none of the run's hosts" in warning
    assert "Did you mean 'node" in warning


def test_a_run_needs_a_host(tmp_path):
    (tmp_path / "bad").write_text("n1\nn2\nn3\n")
    with pytest.raises(PlanError, match="leaves no host, got all 3"):
        exclude_hosts(HOSTS, tmp_path / "bad")
    with pytest.raises(PlanError, match="but no hosts to run on"):
        exclude_hosts(None, tmp_path / "bad")


def test_a_file_that_cannot_be_read_is_no_empty_one(tmp_path):
    with pytest.raises(HostfileError, match="cannot be read: No such file"):
        exclude_hosts(HOSTS, tmp_path / "bad")
    with pytest.raises(HostfileError, match="bad:2: unknown key 'slot'"):
        parse_excluded("n1\nn2 slot=3\n", "bad")


@pytest.mark.parametrize("how", ["hosts_file", "host_list", "config"])
def test_every_way_to_name_hosts_is_covered(tmp_path, how):
    (tmp_path / "bad").write_text("n2\n")
    (tmp_path / "hosts").write_text("n1 slots=2\nn2 slots=2\n")
    asked = {
        "hosts_file": {"hosts_file": tmp_path / "hosts"},
        "host_list": {"host_list": "n1:2,n2:2"},
        "config": {"overrides": (f"launch.hosts={tmp_path / 'hosts'}",)},
    }[how]
    prepared = prepare_request(
        Asked(program=("true",), exclude_file=tmp_path / "bad", name="r", **asked), {"PATH": "/bin"}
    )
    assert [host.name for host in prepared.request.hosts] == ["n1"]


def test_a_head_elsewhere_is_told_the_same(tmp_path):
    asked = Asked(program=("t",), name="r", exclude_file=tmp_path / "bad", preflight=True)
    words = forwarded_arguments(asked)
    assert words[words.index("--exclude-file") + 1] == str(tmp_path / "bad")
    assert "--preflight" in words[: words.index("--")]
