"""What a lab is to be: shapes, options, plans and the commands they come to. Pure tables."""

import shlex
from dataclasses import replace

import pytest

from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterRecord
from hpctrain.clusters.lab.addresses import plan_lab_subnet
from hpctrain.clusters.lab.disks import find_disks
from hpctrain.clusters.lab.facts import Disk, LabFacts, check_machine, parse_mounts, parse_networks
from hpctrain.clusters.lab.faults import Fault, parse_faults, plan_link_fault
from hpctrain.clusters.lab.files import (
    render_hosts,
    render_init,
    render_known_hosts,
    render_lab_hostfile,
    render_lab_ssh_config,
)
from hpctrain.clusters.lab.measure import choose_pairs
from hpctrain.clusters.lab.network import plan_pair, plan_plug, plan_shaping, plan_switch
from hpctrain.clusters.lab.options import (
    LabOptions,
    options_as_json,
    options_from_json,
    parse_options,
)
from hpctrain.clusters.lab.plan import CABLE, NETEM, NONE, plan_delay, plan_lab
from hpctrain.clusters.lab.shape import Shape, parse_bandwidth, parse_latency, parse_loss
from hpctrain.clusters.provider import ClusterRequest
from hpctrain.errors import ClusterError, ConfigError
from hpctrain.hosts import parse_hostfile
from hpctrain.launch.ssh_config import parse_ssh_addresses

FACTS = LabFacts(
    folder="/state/clusters/lab",
    working_folder="/home/ada/project",
    host_name="laptop",
    search_path="/usr/sbin:/usr/bin",
    networks=("192.0.2.2/24",),
    has_tun=True,
    has_overlay=True,
    disks=(Disk("/"), Disk("/home"), Disk("/etc/resolv.conf", is_folder=False)),
)


def plan(facts=FACTS, nodes=None, name="lab", **options):
    return plan_lab(ClusterRequest(name, "lab", nodes, options), facts)


def up(made):
    """Return the facts of the lab that a plan has made."""
    lab = made.detail
    names = frozenset(node.name for node in lab.nodes)
    return replace(
        FACTS, before=lab.options, subnet=lab.subnet, is_whole=True, nodes=names, running=names,
        has_link=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("parse", "good"),
    [
        (parse_bandwidth, {"1gbit": 1e9, "1.5 Mbit": 1.5e6, "100kbit": 1e5, "1000gbit": 1e12}),
        (parse_latency, {"1ms": 0.001, "250us": 0.00025, ".5s": 0.5, "0ms": 0.0}),
        (parse_loss, {"0.1%": 0.001, "99 %": 0.99, "0%": 0.0}),
    ],
)
def test_quantities(parse, good):
    errors = []
    assert {text: parse(text, "x", errors) for text in good} == good
    assert errors == []


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (parse_bandwidth, ["", "1", "1gbps", "1 GB/s", "-1gbit", "1kbit", "2000gbit", "gbit"]),
        (parse_latency, ["", "1", "1m", "-1ms", "11s", "1e3ms"]),
        (parse_loss, ["", "1", "0.1", "100%", "-1%", "1 percent"]),
    ],
)
def test_quantities_that_are_none(parse, texts):
    for text in texts:
        errors = []
        assert parse(text, "--x", errors) is None
        assert len(errors) == 1
        assert errors[0].startswith("--x: no ")
        assert f"got '{text}'" in errors[0]


def test_everything_wrong_is_said_at_once():
    wrong = {
        "bandwith": "1gbit", "latency": "fast", "slots": 0, "private_disk": "maybe",
        "hide": "runs", "node": {"n9": {"loss": "1%"}, "n1": {"loss": "1", "speed": "1"}},
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        parse_options(65, wrong)
    text = "\n".join(caught.value.messages)
    for part in (
        "bandwith: no such option of a lab", "Did you mean 'bandwidth'?", "--nodes: no count",
        "latency: no latency", "slots: no count", "private_disk: neither", "hide: no list",
        "node.n9: no such node", "node.n1.loss: no loss", "node.n1.speed: no such option",
    ):  # fmt: skip
        assert part in text
    assert len(caught.value.messages) == 9


def test_options_on_top_of_those_before():
    first = parse_options(3, {"latency": "1ms", "node": {"n2": {"latency": "5ms"}}, "slots": "4"})
    assert first.shape_of("n2") == Shape(latency_s=0.005)
    more = parse_options(None, {"bandwidth": "1gbit"}, first)
    assert (more.nodes, more.slots, more.shape_of("n2")) == (3, 4, Shape(1e9, 0.005))
    # What is said of all nodes takes the place of what was said of one.
    assert parse_options(None, {"latency": "2ms"}, more).shape_of("n2") == Shape(1e9, 0.002)
    assert parse_options(None, {"latency": "off"}, more).shape_of("n2") == Shape(1e9)
    assert options_from_json(options_as_json(more)) == more


def test_a_new_lab():
    made = plan()
    lab = made.detail
    assert [(n.host_name, n.address, n.slots) for n in lab.nodes] == [
        ("lab-n1", "198.19.196.11", 2), ("lab-n2", "198.19.196.12", 2),
    ]  # fmt: skip
    assert (lab.machine_address, lab.delay_by, lab.makes_switch) == ("198.19.196.1", NONE, True)
    assert (lab.to_start, lab.to_stop, lab.to_reshape, lab.to_clear) == (
        ("n1", "n2"),
        (),
        (),
        False,
    )
    assert made.as_json["to_start"] == ("n1", "n2")
    assert plan() == made  # same inputs, same plan


def test_a_lab_that_is_up_stays():
    facts = up(plan(bandwidth="1gbit"))
    again = plan(facts)
    assert again.detail.changes_nothing
    assert again.lines == ("lab: is up as asked, 2 nodes in 198.19.196.0/24",)
    assert again.detail.options.shape == Shape(1e9)  # without asking again


@pytest.mark.parametrize(
    ("nodes", "options", "running", "expected"),
    [
        (3, {}, "n1 n2", (["n3"], [], [])),
        (1, {}, "n1 n2", ([], ["n2"], [])),
        (None, {}, "n1", (["n2"], ["n2"], [])),  # powered off: cleared away, started again
        (None, {"latency": "1ms"}, "n1 n2", ([], [], ["n1", "n2"])),
        (None, {"node": {"n2": {"loss": "1%"}}}, "n1 n2", ([], [], ["n2"])),
        (3, {"bandwidth": "1gbit"}, "n1", (["n2", "n3"], ["n2"], ["n1"])),
    ],
)
def test_changes_to_a_lab_that_is_up(nodes, options, running, expected):
    facts = replace(up(plan()), running=frozenset(running.split()))
    lab = plan(facts, nodes, **options).detail
    assert (list(lab.to_start), list(lab.to_stop), list(lab.to_reshape)) == expected
    assert not lab.makes_switch
    assert lab.subnet == facts.subnet


@pytest.mark.parametrize(
    "change", [{"is_whole": False}, {"has_link": False}, {"nodes": frozenset()}]
)
def test_what_is_not_whole_is_made_anew(change):
    lab = plan(replace(up(plan(nodes=3)), **change)).detail
    assert (lab.makes_switch, lab.to_clear) == (True, True)
    assert lab.to_start == ("n1", "n2")  # what was asked before has gone with it


def test_what_cannot_be():
    with pytest.raises(ConfigError, match="cannot be changed while the lab is up"):
        plan(up(plan()), private_disk=True)
    with pytest.raises(ConfigError, match="no overlay file system"):
        plan(replace(FACTS, has_overlay=False), private_disk=True)
    with pytest.raises(ConfigError, match="XDG_STATE_HOME"):
        plan(replace(FACTS, folder="/run/user/0/clusters/lab"))
    with pytest.raises(ClusterError, match="neither sch_netem nor /dev/net/tun"):
        plan(replace(FACTS, has_tun=False), latency="1ms")


DISKS = frozenset({"n1", "n2", "n3"})


@pytest.mark.parametrize(
    ("nodes", "private", "kept", "lost"),
    [
        (3, True, "n1 n2 n3", ""),
        (None, True, "n1 n2", "n3"),
        (3, False, "", "n1 n2 n3"),
    ],
)
def test_after_a_restart_of_this_machine_disks_are_kept_or_asked_about(nodes, private, kept, lost):
    was = up(plan(nodes=3, private_disk=True))
    facts = replace(
        was, nodes=frozenset(), running=frozenset(), has_link=False, with_disk=DISKS
    )  # fmt: skip
    made = plan(facts, nodes, private_disk=private)
    assert (" ".join(made.detail.keeps_disks), " ".join(made.detail.loses_disks)) == (kept, lost)
    assert bool(made.question) == bool(lost)
    assert lost.replace(" ", ", ") in made.question
    said = [line for line in made.lines if "with all that was written there, are removed" in line]
    assert bool(said) == bool(lost)
    assert not said or ("--private-disk keeps them" in said[0]) == (not private)


def test_a_disk_holds_something_also_where_only_a_hidden_folder_does(tmp_path):
    directory = ClusterDirectory("lab", tmp_path)
    for node, file in (("n2", "hidden-runs/checkpoint"), ("n10", "upper-root/new"), ("n1", "")):
        layers = directory.path / "nodes" / node / "disk"
        (layers / "work-root" / "work").mkdir(parents=True)
        (layers / "upper-root").mkdir()
        if file:
            (layers / file).parent.mkdir(exist_ok=True)
            (layers / file).touch()
    assert find_disks(directory) == ["n1", "n2", "n10"]
    assert find_disks(directory, written=True) == ["n2", "n10"]


def test_a_node_goes_with_its_disk_only_when_asked():
    was = up(plan(nodes=3, private_disk=True))
    for with_disk in (DISKS, frozenset()):  # in memory, the second time
        facts = replace(was, with_disk=with_disk)
        assert plan(facts, 2).question == (
            "Remove the private disk of n3, with all that was written there?"
        )
        assert not plan(facts, 4).question
        assert not plan(replace(facts, running=frozenset({"n1", "n2"}))).question
    assert not plan(up(plan(nodes=3)), 2).question


def test_what_is_not_ours_is_in_the_way():
    with pytest.raises(ClusterError, match=r"first\nsecond"):
        plan(replace(FACTS, obstacles=("first", "second")))


def test_the_network_is_free():
    assert plan_lab_subnet("lab", []) == "198.19.196.0/24"
    assert plan_lab_subnet("lab", ["198.19.196.77"]) == "198.19.197.0/24"
    assert plan_lab_subnet("lab", ["198.19.0.0/16"]) == "198.18.0.0/24"
    assert plan_lab_subnet("other", []) != "198.19.196.0/24"
    with pytest.raises(ClusterError, match="no free network"):
        plan_lab_subnet("lab", ["198.18.0.0/15"])


@pytest.mark.parametrize(
    ("shape", "netem", "expected"),
    [
        (Shape(1e9), True, NONE),
        (Shape(latency_s=0.001), True, NETEM),
        (Shape(loss=0.1), False, CABLE),
    ],
)
def test_what_delays_packets(shape, netem, expected):
    assert plan_delay([Shape(), shape], replace(FACTS, has_netem=netem)) == expected


def lines(steps):
    return [" ".join(step.argv) + (f" <<< {step.stdin}" if step.stdin else "") for step in steps]


def test_the_commands_of_the_network():
    lab = plan().detail
    switch = lines(plan_switch(lab, 77))
    assert switch[0] == "ip netns add hpctrain.lab.switch"
    # Marked while it is still in the switch.
    link = "ip -n hpctrain.lab.switch link"
    at = switch.index(f"{link} add hpc-lab type veth peer name uplink")
    assert switch[at + 1 : at + 3] == [
        f"{link} set hpc-lab alias hpctrain lab lab in /state/clusters/lab",
        f"{link} set hpc-lab netns 77",
    ]
    assert switch[-1].endswith("addr add 198.19.196.1/24 dev hpc-lab\nlink set hpc-lab up\n")
    assert lines(plan_pair(lab, lab.nodes[0])) == [
        "ip -n hpctrain.lab.switch link add to-n1 type veth peer name eth0 netns hpctrain.lab.n1"
    ]
    assert lines(plan_plug(lab, lab.nodes[0]))[-1] == (
        "ip -n hpctrain.lab.n1 -batch - <<< link set lo up\n"
        "link set eth0 address 02:00:c6:13:c4:0b\n"
        "addr add 198.19.196.11/24 dev eth0\nlink set eth0 up\n"
    )


@pytest.mark.parametrize(
    ("shape", "by", "sends", "hears"),
    [
        (Shape(), NONE, None, None),
        (Shape(1e9), NONE, "tbf rate 1000000000bit burst 250000 limit 6500000", "same"),
        (Shape(1e6), NONE, "tbf rate 1000000bit burst 16000 limit 31000", "same"),
        (Shape(latency_s=0.001), CABLE, None, None),
        (Shape(1e8, 0.001), CABLE, "tbf rate 100000000bit burst 67036 limit 692036", "same"),
        (Shape(latency_s=0.001), NETEM, "netem delay 1000us limit 42500", None),
        (
            Shape(1e8, 0.01, 0.001), NETEM,
            "netem delay 10000us loss 0.1% rate 100000000bit limit 1000",
            "tbf rate 100000000bit burst 25000 limit 650000",
        ),
    ],
)  # fmt: skip
def test_the_commands_of_a_shape(shape, by, sends, hears):
    done = [line for line in lines(plan_shaping("lab", "n1", shape, by)) if " add " in line]
    expected = [("hpctrain.lab.n1", "eth0", sends)]
    expected.append(("hpctrain.lab.switch", "to-n1", sends if hears == "same" else hears))
    assert done == [
        f"tc -n {space} qdisc add dev {link} root {words}"
        for space, link, words in expected
        if words
    ]


def test_single_packets_are_lost():
    *_, last = lines(plan_shaping("lab", "n1", Shape(loss=0.01), CABLE))
    assert last == "ip -n hpctrain.lab.n1 link set eth0 gso_max_segs 1 gso_max_size 65536"


def test_files():
    lab = plan().detail
    hosts = parse_hostfile(render_lab_hostfile(lab)).hosts
    assert [(host.name, host.slots) for host in hosts] == [("lab-n1", 2), ("lab-n2", 2)]
    ssh_config = render_lab_ssh_config(lab)
    assert parse_ssh_addresses(ssh_config, ["lab-n1", "n2", "other"]) == {
        "lab-n1": "198.19.196.11", "n2": "198.19.196.12",
    }  # fmt: skip
    assert "StrictHostKeyChecking yes" in ssh_config
    assert "198.19.196.1 laptop\n" in render_hosts(lab)
    assert (
        render_known_hosts({"lab-n1": "ssh-ed25519 AAAA hpctrain"}) == "lab-n1 ssh-ed25519 AAAA\n"
    )


def test_a_nodes_first_script():
    lab = plan().detail
    shared = render_init(lab, lab.nodes[0])
    assert "overlay" not in shared
    lab = plan(
        replace(FACTS, folder="/st ate/lab"), private_disk=True, hide=["runs", "/data"]
    ).detail
    script = render_init(lab, lab.nodes[0])
    for part in (
        "disk='/st ate/lab/nodes/n1/disk'",
        'layer / root "$root"',
        'layer /home home "$root"/home',
        'mount --bind -o ro /etc/resolv.conf "$root"/etc/resolv.conf',  # a single file
        "pivot_root",
        "boot_id",
    ):
        assert part in script, part
    # A link in the node's files must lead to the node's files: nothing is hidden before.
    before, after = script.split("pivot_root")
    for part in ("mkdir -p /home/ada/project/runs; mount", "mkdir -p /data; mount"):
        assert part in after, part
    assert "data" in before  # its layer
    assert "/data" not in before


def test_each_file_system_has_a_layer_of_its_own_whatever_else_is_mounted():
    paths = ["/a/b", "/a_b", "/a%2Fb", "/a b"]

    def layers(paths):
        facts = replace(FACTS, disks=tuple(Disk(path) for path in ("/", *paths)))
        lab = plan(facts, private_disk=True).detail
        words = [shlex.split(line) for line in render_init(lab, lab.nodes[0]).splitlines()
                 if line.startswith(("layer /", "layer '"))]  # fmt: skip
        return {word[1]: word[2] for word in words}

    assert list(layers(paths)) == paths
    assert len(set(layers(paths).values())) == 4
    # When a node starts again on its old disk, another one may have been mounted meanwhile.
    assert layers(paths[1:])["/a_b"] == layers(paths)["/a_b"]
    assert all(len(layer) < 200 for layer in layers(["/" + 300 * "x"]).values())

    def hidden(*folders):
        lab = plan(private_disk=True, hide=list(folders)).detail
        script = render_init(lab, lab.nodes[0])
        return {line.split()[-1]: line for line in script.splitlines() if "/run/before" in line}

    assert hidden("/data", "runs")["/data"] == hidden("/data")["/data"]


def test_faults():
    assert parse_faults(["link-down", "slow=50mbit", "slow=off", "cpu=20%", "cpu=100%"]) == [
        Fault("link-down", "link-down"),
        Fault("slow=50mbit", "slow", bit_per_s=5e7),
        Fault("slow=off", "slow"),
        Fault("cpu=20%", "cpu", share=0.2),
        Fault("cpu=100%", "cpu"),
    ]
    with pytest.raises(ConfigError) as caught:
        parse_faults(["linkdown", "slow", "slow=1", "cpu=0%", "drop=1"])
    assert len(caught.value.messages) == 5
    assert "Did you mean 'link-down'?" in caught.value.messages[0]


def test_the_steps_of_a_fault():
    record = ClusterRecord("lab", "lab", 0.0, "up", plan().nodes)
    assert lines(plan_link_fault(record, "n2", "link-down"))[0] == (
        "ip -n hpctrain.lab.switch link set to-n2 down"
    )
    assert lines(plan_link_fault(record, "n2", "drop")) == [
        "bridge -n hpctrain.lab.switch link set dev to-n2 state 0"
    ]
    (isolate,) = lines(plan_link_fault(record, "n2", "isolate"))
    assert "neigh replace 198.19.196.11 lladdr" in isolate
    assert "198.19.196.12" not in isolate  # its own


def test_which_links_are_measured():
    nodes = plan(nodes=4, latency="1ms", node={"n3": {"bandwidth": "10mbit"}}).detail.nodes
    pairs = [(sender.name, receiver.name) for sender, receiver in choose_pairs(nodes)]
    assert pairs == [("n1", "n2"), ("n3", "n1")]
    assert choose_pairs(nodes[:1]) == []


def test_what_ip_says_of_networks():
    addresses = [
        {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}]},
        {"ifname": "hpc-lab", "addr_info": [{"local": "198.19.196.1", "prefixlen": 24}]},
    ]
    routes = [
        {"dst": "default", "dev": "eth0"},
        {"dst": "198.19.196.0/24", "dev": "hpc-lab"},
        {"type": "blackhole", "dst": "198.18.0.0/24"},
    ]
    assert parse_networks(addresses, routes, "hpc-lab") == ("127.0.0.1/8", "198.18.0.0/24")


def test_what_holds_files():
    text = (
        "27 1 254:0 / / rw - ext4 /dev/vda rw\n"
        "24 27 0:6 / /dev rw - devtmpfs devtmpfs rw\n"
        "25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw\n"
        "26 27 0:30 / /run rw shared:1 - tmpfs run rw\n"
        "28 27 8:1 / /home/my\\040disk rw shared:5 - ext4 /dev/sda rw\n"
        "29 27 8:2 /f /etc/hosts rw - ext4 /dev/sdb rw\n"
    )
    assert parse_mounts(text, lambda path: path != "/etc/hosts") == (
        Disk("/"), Disk("/etc/hosts", is_folder=False), Disk("/home/my disk"),
    )  # fmt: skip


def test_a_machine_that_can_have_no_lab(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda name, path: None if name == "sshd" else name)
    with pytest.raises(ClusterError) as caught:
        check_machine({"PATH": "/bin"})
    first, second = caught.value.messages
    assert "need root, got user id 1000" in first
    assert "got no openssh-server" in second
    assert all("hpctrain run --np 4" in message for message in caught.value.messages)
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(ClusterError, match="got darwin; expected linux"):
        check_machine({})


def test_defaults():
    assert LabOptions() == parse_options(None, {})
