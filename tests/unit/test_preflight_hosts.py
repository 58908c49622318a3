"""Preflight between hosts: the way back, clocks, full packets, logins from host to host."""

import json
import socket
import sys
from shutil import which
from types import SimpleNamespace

import pytest

from hpctrain.executor import Command, Completed, LocalExecutor, RecordingExecutor, render_command
from hpctrain.hosts import Host
from hpctrain.launch.placement import Placement
from hpctrain.preflight.checks import mtu
from hpctrain.preflight.checks.clock import CLOCK, measure_clock
from hpctrain.preflight.checks.host_to_host import HOST_TO_HOST, look_at_neighbours
from hpctrain.preflight.checks.mtu import ARRIVED, MTU, SILENCE, TOO_BIG, look_at_mtu, try_packet
from hpctrain.preflight.checks.reach import REACH
from hpctrain.preflight.checks.way_back import WAY_BACK, look_back
from hpctrain.preflight.contact import Contact
from hpctrain.preflight.fleet import Answer, Fleet
from hpctrain.preflight.gather import BOOTSTRAP_WORD, MARK, read_answer
from hpctrain.preflight.markers import find_markers, group_by_sight, new_word
from hpctrain.preflight.request import starts_from_host_to_host
from hpctrain.preflight.ring import plan_neighbours
from hpctrain.preflight.ssh_words import Broken
from hpctrain.preflight.task import NodeTask, task_as_json
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN
from hpctrain.preflight.way_back import listening


def fleet(probe, values, *, local=(), unreachable=(), **facts):
    answers = {host: Answer(value) for host, value in values.items()}
    hosts = [*values, *unreachable]
    return Fleet(
        tasks={h: NodeTask(host=h) for h in hosts}, answers={probe: answers},
        local=frozenset(local), unreachable=dict.fromkeys(unreachable, "ssh: no"), facts=facts,
    )  # fmt: skip


def judged(check, fleet):
    return [(v.status, *v.hosts) for v in check.judge(fleet)]


# -- asking ---------------------------------------------------------------------------------------


def completed(stdout="", stderr="", code=0):
    return Completed(Command(("ssh",)), code, stdout, stderr)


@pytest.mark.parametrize(
    ("before", "after", "noise"),
    [
        ("", "", ""),
        ("\n", "\n", ""),
        ("Welcome to n1!\n\n", "\nbye\n", "Welcome to n1!"),
        ("no end of line", "", "no end of line"),
    ],
)
def test_an_answer_is_found_in_what_a_login_shell_prints(before, after, noise):
    text = before + MARK + '{"answers": {"x": {"value": 1}}, "spent_s": 2.5}' + after
    answer, contact = read_answer(completed(text), 100.0, 104.0)
    assert answer == {"x": {"value": 1}}
    assert contact.noise == noise
    assert contact.login_s == 1.5


@pytest.mark.parametrize("text", ["", "hello", MARK, MARK + '{"answers": {"x', MARK + "[1]"])
def test_what_is_no_answer_is_none(text):
    answer, contact = read_answer(completed(text, "a\nlast words\n", 1), 100.0, 104.0)
    assert answer is None
    assert (contact.last_words, contact.login_s) == ("last words", None)


def test_judging_the_way_there():
    broken = {"n3": Broken("port", "nothing listens on port 22", "systemctl start ssh")}
    contacts = {
        "n1": Contact(ended_s=5.0, spent_s=4.0),
        "n2": Contact(noise="Welcome!\nto n2", ended_s=30.0, spent_s=1.0),
    }
    hosts = fleet("x", {"n1": 1, "n2": 1, "here": 1}, local=["here"], unreachable=["n3"],
                  contacts=contacts, reach=broken, by_hand={"n2": "ssh -p 23 ada@n2"})  # fmt: skip
    verdicts = list(REACH.judge(hosts))
    assert [(v.status, *v.hosts) for v in verdicts] == [
        (PASS, "n1"), (WARN, "n2"), (WARN, "n2"), (PASS, "here"), (FAIL, "n3"),
    ]  # fmt: skip
    assert "'Welcome!'" in verdicts[1].found
    assert "took 29 s" in verdicts[2].found
    assert verdicts[2].fix.endswith(": time ssh -p 23 ada@n2 true")
    assert verdicts[4].found == "port: nothing listens on port 22"


SHELLS = [name for name in ("sh", "bash", "dash", "csh", "tcsh", "zsh", "fish") if which(name)]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_question_gets_through_any_login_shell(shell, tmp_path):
    """ssh hands the line to the login shell of the user: what it must not be is csh's, too."""
    task = NodeTask(host="n1", cwd=str(tmp_path), environ={"A": "it's $HOME!"}, probes=("none",))
    line = render_command(Command((sys.executable, "-c", BOOTSTRAP_WORD)))
    assert not {"\n", "!"} & set(line)  # in quotes csh refuses the one and replaces the other
    done = LocalExecutor().run(
        Command((shell, "-c", line)), timeout_s=60, stdin=json.dumps(task_as_json(task))
    )
    answer, _ = read_answer(done, 0.0, 1.0)
    assert done.stderr == ""
    assert answer["none"]["error"].startswith("this host's hpctrain has no such probe")


def test_this_machine_may_be_the_one_that_does_not_answer():
    (verdict,) = REACH.judge(fleet("x", {}, local=["here"], unreachable=["here"]))
    assert (verdict.status, verdict.hosts) == (FAIL, ("here",))
    assert "ssh" not in verdict.fix
    assert verdict.fix.endswith(" -m hpctrain.probe")


# -- the way back, and clocks ---------------------------------------------------------------------


def test_a_host_reaches_the_launcher_and_compares_clocks():
    with listening("127.0.0.1") as head:
        value = look_back(NodeTask(host="n1", more={"way-back": head.as_json()}))
        stranger = head.as_json() | {"word": "another"}
        refused = look_back(NodeTask(host="n1", more={"way-back": stranger}))
    assert value["reached"]
    assert abs(value["ahead_s"]) <= value["error_s"] + 0.001  # one clock
    assert not refused["reached"]
    gone = look_back(NodeTask(host="n1", more={"way-back": head.as_json()}))
    assert (gone["reached"], gone["error"]) == (False, "Connection refused")
    assert look_back(NodeTask(host="n1"))["reached"] is False


def test_an_address_that_is_not_ours_is_not_listened_on():
    with listening("203.0.113.1") as head:
        assert head is None


def test_judging_the_way_back():
    with listening("127.0.0.1") as head:
        pass
    values = {
        "n1": {"reached": True, "error": ""}, "here": {"reached": False, "error": "x"},
        "n2": {"reached": False, "error": "No route to host"},
    }  # fmt: skip
    hosts = fleet("way-back", values, local=["here"], **{"way-back": head})
    verdicts = list(WAY_BACK.judge(hosts))
    assert [(v.status, *v.hosts) for v in verdicts] == [(PASS, "n1"), (FAIL, "n2")]
    assert "127.0.0.1: No route to host" in verdicts[1].found
    assert [v.status for v in WAY_BACK.judge(fleet("way-back", {"n1": values["n1"]}))] == [SKIP]


@pytest.mark.parametrize(
    ("ahead_s", "error_s", "status"),
    [
        (0.0, 0.001, PASS), (0.9, 0.001, PASS), (-1.2, 0.001, WARN), (1.2, 0.5, PASS),
        (59.0, 0.001, WARN), (-61.0, 0.1, FAIL), (61.0, 5.0, WARN),
    ],
)  # fmt: skip
def test_judging_clocks(ahead_s, error_s, status):
    value = {"clock_s": 0.0, "ahead_s": ahead_s, "error_s": error_s}
    (verdict,) = CLOCK.judge(fleet("way-back", {"n1": value}))
    assert verdict.status == status
    if status != PASS:
        assert ("ahead of" if ahead_s > 0 else "behind") in verdict.found


def test_without_a_way_back_the_question_itself_bounds_the_clock():
    contact = Contact(began_s=100.0, ended_s=104.0)
    assert measure_clock({"clock_s": 162.0}, contact) == (60.0, 2.0)
    assert measure_clock({"clock_s": 162.0}, None) is None
    hosts = fleet("way-back", {"n1": {"clock_s": 162.0}}, contacts={"n1": contact})
    assert judged(CLOCK, hosts) == [(WARN, "n1")]
    assert judged(CLOCK, fleet("way-back", {"n1": {"clock_s": 1.0}})) == [(SKIP, "n1")]


# -- from host to host ----------------------------------------------------------------------------


def test_each_host_tries_the_next_two_and_never_itself():
    hosts = [Host(f"n{i}") for i in range(100)]
    tried = plan_neighbours(hosts)
    assert all(len(peers) == 2 for peers in tried.values())
    assert [peer["name"] for peer in tried["n99"]] == ["n0", "n1"]
    counts = [peer["name"] for peers in tried.values() for peer in peers]
    assert all(counts.count(host.name) == 2 for host in hosts)
    assert plan_neighbours([Host("a")]) == {"a": []}
    (peer,) = plan_neighbours([Host("fe80::1"), Host("b", user="ada", port=23)])["fe80::1"]
    assert peer == {"name": "b", "alias": "b", "user": "ada", "port": 23}


def test_a_login_from_host_to_host_names_the_step(monkeypatch):
    from hpctrain.preflight.checks import host_to_host

    executor = RecordingExecutor({
        " n2 ": (0, "", ""),
        " n3 ": (255, "", "ada@n3: Permission denied (publickey).\r\n"),
    })  # fmt: skip
    monkeypatch.setattr(host_to_host, "LocalExecutor", lambda: executor)
    peers = plan_neighbours([Host("n1"), Host("n2"), Host("n3", user="ada", port=23)])["n1"]
    value = look_at_neighbours(NodeTask(host="n1", more={"neighbours": peers}))
    assert [(peer["to"], peer["step"]) for peer in value] == [("n2", ""), ("n3", "login")]
    line = " ".join(executor.commands[1].argv)
    assert "-l ada -p 23" in line


def test_a_login_that_fails_is_repeated_with_its_port_and_user(monkeypatch):
    from hpctrain.preflight.checks import host_to_host

    answers = {"n2": (5, "", "odd"), "n3": (255, "", "Permission denied (publickey).\n")}
    monkeypatch.setattr(host_to_host, "LocalExecutor", lambda: RecordingExecutor(answers))
    there = {"user": "ada", "port": 23}
    peers = plan_neighbours([Host("n1"), Host("n2", **there), Host("n3", **there)])["n1"]
    odd, refused = look_at_neighbours(NodeTask(host="n1", more={"neighbours": peers}))
    assert odd["fix"] == "ssh -p 23 ada@n2 true"
    assert refused["fix"] == "ssh-copy-id -p 23 ada@n3"


@pytest.mark.parametrize(("tree", "status"), [(True, FAIL), (False, SKIP)])
def test_judging_logins_between_hosts(tree, status):
    bad = {"to": "n2", "step": "login", "found": "no key", "fix": "ssh-copy-id"}
    good = {"to": "n3", "step": ""}
    values = {"n1": [bad, good], "n2": [good], "n3": [], "n4": [{**bad, "to": "off"}]}
    hosts = fleet("host-to-host", values, unreachable=["off"], tree_launch=tree)
    assert judged(HOST_TO_HOST, hosts) == [
        (status, "n1"), (PASS, "n2"), (SKIP, "n3"), (SKIP, "n4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("hosts", "flavour", "argv", "tree"),
    [
        (64, "openmpi5", ("mpirun",), True),
        (63, "openmpi5", ("mpirun",), False),
        (64, "openmpi5", ("mpirun", "--prtemca", "plm_ssh_no_tree_spawn", "1"), False),
        (64, "mpich", ("mpirun",), False),  # Hydra logs in to every host itself
    ],
)
def test_which_launches_go_from_host_to_host(hosts, flavour, argv, tree):
    placement = tuple(Placement(f"n{number}", 1, 1) for number in range(hosts))
    plan = SimpleNamespace(placement=placement, command=Command(argv))
    assert starts_from_host_to_host(plan, flavour) is tree
    assert starts_from_host_to_host(None, flavour) is False


# -- packets --------------------------------------------------------------------------------------


def test_a_packet_to_a_closed_port_comes_back_as_a_refusal():
    assert try_packet("127.0.0.1", 64) == ARRIVED
    assert try_packet("127.0.0.1", 65508) == TOO_BIG  # more than UDP can hold


def test_a_packet_to_a_closed_port_comes_back_by_ipv6_too():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    assert try_packet("::1", 64) == ARRIVED
    assert try_packet("::1", 65508) == TOO_BIG


def test_looking_at_a_path(monkeypatch):
    monkeypatch.setattr(mtu, "find_address", lambda name, task: "127.0.0.1")
    more = {"neighbours": [{"name": "n2"}, {"name": "n3"}]}
    found = look_at_mtu(NodeTask(host="n1", more=more))
    assert [path["to"] for path in found] == ["n2", "n3"]
    for path in found:
        assert (path["interface"], path["small"], path["full"]) == ("lo", ARRIVED, ARRIVED)
        assert path["mtu"] >= 1500


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (("10.0.0.2", "10.1.0.2"), "10.1.0.2"),  # in the chosen network
        (("127.0.1.1",), "10.1.0.9"),  # the launching machine's own name, as Debian has it
        ((), "10.1.0.7"),  # only the name is left
    ],
)
def test_the_address_at_which_packets_are_tried(monkeypatch, known, expected):
    answer = [(0, 0, 0, "", (address, 0)) for address in ("127.0.1.1", "10.1.0.7")]
    monkeypatch.setattr(mtu.socket, "getaddrinfo", lambda *_, **__: answer)
    task = NodeTask(
        host="n1", hosts={"n2": known}, subnet="10.1.0.0/24", launcher=("10.0.0.9", "10.1.0.9")
    )
    assert mtu.find_address("n2", task) == expected


def test_a_name_that_is_loopback_alone_is_no_path(monkeypatch):
    answer = [(0, 0, 0, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(mtu.socket, "getaddrinfo", lambda *_, **__: answer)
    task = NodeTask(host="n1", more={"neighbours": [{"name": "n2"}]})
    assert look_at_mtu(task) == [{"to": "n2", "error": "has no address here"}]


def path(to="n9", small=ARRIVED, full=ARRIVED, mtu=1500, path_mtu=1500):
    return {"to": to, "interface": "eth0", "mtu": mtu, "small": small, "full": full,
            "path_mtu": path_mtu}  # fmt: skip


def test_judging_paths():
    values = {
        "whole": [path(), path()],
        "hole": [path(), path(full=SILENCE)],
        "narrow": [path(full=TOO_BIG, path_mtu=1400)],
        "silent": [path(small=SILENCE, full=SILENCE)],
        "lost": [{"to": "n9", "error": "has no address here"}],
        "alone": [],
    }
    verdicts = list(MTU.judge(fleet("mtu", values)))
    assert [(v.status, *v.hosts) for v in verdicts] == [
        (PASS, "whole"), (FAIL, "hole"), (WARN, "narrow"), (SKIP, "silent"), (WARN, "lost"),
        (SKIP, "alone"),
    ]  # fmt: skip
    assert "1400 bytes at most" in verdicts[2].found
    assert "was not tested" in verdicts[3].found


def test_interfaces_of_another_size_are_named():
    values = {"n1": [path(mtu=9000)], "n2": [path(mtu=9000)], "n3": [path(mtu=1500)]}
    *_, last = MTU.judge(fleet("mtu", values))
    assert (last.status, last.hosts, last.expected) == (WARN, ("n3",), "9000")


# -- one folder -----------------------------------------------------------------------------------


def test_hosts_that_see_one_folder_are_found_and_nothing_stays(tmp_path):
    shared, own = tmp_path / "shared", tmp_path / "own"
    word = new_word()
    markers = {}
    for place, (host, folder) in enumerate({"n1": shared, "n2": own, "n3": shared}.items()):
        folder.mkdir(exist_ok=True)
        (folder / f"{word}-{place}").touch()
        markers[host] = (str(folder), f"{word}-{place}")
    (shared / f"{new_word()}-0").touch()  # another preflight's
    seen = find_markers(markers, frozenset(markers), ())
    assert group_by_sight(seen) == [["n1", "n3"], ["n2"]]
    assert list(own.iterdir()) == []
    assert len(list(shared.iterdir())) == 1


def test_a_chain_of_sights_is_one_group():
    seen = {"a": ["a"], "b": ["a", "b"], "c": ["b", "c"], "d": ["d"], "e": ["gone", "e"]}
    assert group_by_sight(seen) == [["a", "b", "c"], ["d"], ["e"]]
