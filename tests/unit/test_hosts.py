"""Hostfiles and host lists: what is read, what adds up, and every error at once."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.errors import HostfileError
from hpctrain.hosts import Host, parse_host_list, parse_hostfile, render_hostfile

FOLDER = Path(__file__).parents[2] / "hostfiles"
SAMPLES = sorted(path for path in FOLDER.iterdir() if path.suffix != ".md")


def places(hosts):
    return [(host.name, host.slots, host.max_slots) for host in hosts.hosts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node1 slots=4", [("node1", 4, None)]),
        ("node1 slots = 4   max_slots =8", [("node1", 4, 8)]),
        ("node1 slots=4 max-slots=8", [("node1", 4, 8)]),
        (
            "# head\n\n  node1  # first\r\nnode2 slots=2\r\n",
            [("node1", None, None), ("node2", 2, None)],
        ),
        ("\ufeffnode1 slots=1", [("node1", 1, None)]),
        (
            "fe80::1 slots=2\n[2001:db8::7] slots=3",
            [("fe80::1", 2, None), ("2001:db8::7", 3, None)],
        ),
        ("10.0.0.7 slots=8", [("10.0.0.7", 8, None)]),
        ("n[01-03] slots=2", [("n01", 2, None), ("n02", 2, None), ("n03", 2, None)]),
        ("gpu[1,5]-ib", [("gpu1-ib", None, None), ("gpu5-ib", None, None)]),
    ],
)
def test_hostfile_lines(text, expected):
    assert places(parse_hostfile(text)) == expected


def test_user_and_port():
    hosts = parse_hostfile("ada@node1 slots=2 port=2222\nnode2 user=bob\nnode3 username=eve").hosts
    assert [(h.user, h.port) for h in hosts] == [("ada", 2222), ("bob", None), ("eve", None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:2,b:3", [("a", 2, None), ("b", 3, None)]),
        ("n[1-2,4]:2,b", [("n1", 2, None), ("n2", 2, None), ("n4", 2, None), ("b", None, None)]),
        ("[::1]:2,fe80::2", [("::1", 2, None), ("fe80::2", None, None)]),
    ],
)
def test_host_list(text, expected):
    assert places(parse_host_list(text)) == expected


def test_host_list_keeps_the_user():
    assert parse_host_list("ada@node1:2").hosts[0].user == "ada"


def test_a_host_that_stands_twice_adds_up_and_is_warned_of():
    hosts = parse_hostfile("a slots=2 max_slots=3\nb slots=1\na slots=4 max_slots=5", "f")
    assert places(hosts) == [("a", 6, 8), ("b", 1, None)]
    assert hosts.warnings == ("f:3: a stands at f:1 too: their slots add up to 6.",)


def test_a_pbs_nodefile_has_one_line_a_rank_and_no_warning():
    hosts = parse_hostfile("n0\nn0\nn1\nn1\nn1\n")
    assert places(hosts) == [("n0", 2, None), ("n1", 3, None)]
    assert hosts.warnings == ()


def test_every_wrong_line_is_named_at_once():
    text = "ok slots=1\nn1 slot=4\nn2 slots=x\nn3 slots=0\nn4 slots=4 max_slots=2\nn5 port=99999\n"
    text += "n;rm slots=1\nn[1- slots=1\n@rack slots=1\na:b\nn6 slots\nn7 slots=1 slots=2"
    with pytest.raises(HostfileError) as caught:
        parse_hostfile(text, "hosts.txt")
    assert [message.split(" ")[0] for message in caught.value.messages] == [
        f"hosts.txt:{line}:" for line in range(2, 13)
    ]
    first = caught.value.messages[0]
    assert "unknown key 'slot'" in first
    assert "Did you mean 'slots'?" in first


def test_contradictions_between_lines_of_one_host():
    with pytest.raises(HostfileError, match="another user"):
        parse_hostfile("ada@n1\nbob@n1")


@pytest.mark.parametrize("text", ["", "# nothing\n\n"])
def test_an_empty_hostfile_is_an_error(text):
    with pytest.raises(HostfileError, match="no host in it"):
        parse_hostfile(text)


@pytest.mark.parametrize("text", ["a:0", "a:-1", "a,,b", "", "a b", "@all", "n[1-99999999]"])
def test_wrong_host_lists(text):
    with pytest.raises(HostfileError):
        parse_host_list(text)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    hosts = None
    with suppress(HostfileError):
        hosts = parse_hostfile(text).hosts
    assert hosts is None or all(host.name for host in hosts)


names = st.from_regex(r"\A[a-z][a-z0-9-]{0,8}[a-z0-9]\Z")
hosts = st.builds(
    Host, name=names, slots=st.integers(1, 64), max_slots=st.none() | st.integers(64, 128),
    user=st.none() | names, port=st.none() | st.integers(1, 65535),
)  # fmt: skip


@given(st.lists(hosts, min_size=1, max_size=6, unique_by=lambda host: host.name))
def test_what_is_rendered_is_read_back(listed):
    read = parse_hostfile(render_hostfile(listed))
    assert [replace(host, where="") for host in read.hosts] == listed
    assert read.warnings == ()


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_shipped_samples(path):
    hosts = parse_hostfile(path.read_text(), path.name)
    assert hosts.hosts
    assert all(host.slots for host in hosts.hosts)


def test_every_sample_is_listed():
    readme = (FOLDER / "README.md").read_text()
    assert len(SAMPLES) >= 4
    assert all(f"`{path.name}`" in readme for path in SAMPLES)
