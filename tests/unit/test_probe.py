"""Probing: parsers on captured text, answers of hosts over ssh, and what is kept of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpctrain import probe
from hpctrain.errors import ProbeError
from hpctrain.executor import Completed, RecordingExecutor, SshExecutor
from hpctrain.facts import (
    Facts,
    HostFacts,
    Interface,
    RdmaPort,
    host_facts_as_json,
    host_facts_from_json,
    parse_gpu_list,
    parse_rdma_port_state,
    parse_visible_devices,
)
from hpctrain.hosts import Host, parse_hostfile
from hpctrain.launch.ssh_config import host_alias
from hpctrain.probe import probe_hosts, probe_this_host, read_cached_facts, resolve_addresses

NODE = HostFacts(
    "n1", cores=8, gpus=("NVIDIA H200",) * 2, user_id=7, cloud="aws", probed_at_s=12.5,
    interfaces=(Interface("eth0", ("10.0.0.1/24", "fe80::1/64")), Interface("lo", ("::1/128",))),
    rdma_ports=(RdmaPort("mlx5_0", 1, "InfiniBand"),),
)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "hpctrain" / "facts"


# -- parsers -------------------------------------------------------------------------------------

# The layout of GPUs with MIG on, as several projects publish it; not captured by ourselves.
MIG_LIST = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-11111111-2222-3333-4444-555555555555)
  MIG 3g.20gb     Device  0: (UUID: MIG-aaaaaaaa-2222-3333-4444-555555555555)
  MIG 1g.5gb      Device  1: (UUID: MIG-bbbbbbbb-2222-3333-4444-555555555555)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-22222222-2222-3333-4444-555555555555)
"""


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        (MIG_LIST, ("NVIDIA A100-SXM4-40GB",) * 2),
        ("GPU 0: NVIDIA H200 (UUID: GPU-1)\nGPU 1: NVIDIA A40 (UUID: GPU-2)\n",
         ("NVIDIA H200", "NVIDIA A40")),
        ("GPU 10: NVIDIA GH200 480GB (UUID: GPU-3)\r\n", ("NVIDIA GH200 480GB",)),
        ("No devices found.\n", ()),
        ("", ()),
    ],
)  # fmt: skip
def test_gpus_of_nvidia_smi(text, gpus):
    assert parse_gpu_list(text) == gpus


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (None, 4), ("", 0), ("0", 1), ("3,1", 2), (" 0 , 1 ", 2), ("-1", 0), ("0,-1,1", 1),
        ("0,9,1", 1), ("NoDevFiles", 0), ("GPU-5a7b,GPU-6c8d", 2), ("none", 0), ("0,,1", 1),
    ],
)  # fmt: skip
def test_cuda_visible_devices(value, count):
    assert len(parse_visible_devices(value, ("A",) * 4)) == count


@pytest.mark.parametrize(
    ("text", "usable"),
    [("4: ACTIVE\n", True), ("1: DOWN", False), ("2: INIT", False), ("5: ACTIVE_DEFER", False)],
)
def test_rdma_port_states(text, usable):
    assert parse_rdma_port_state(text) is usable


def test_rdma_ports_are_read_from_the_kernel(tmp_path):
    for device, state, layer in (
        ("mlx5_0", "4: ACTIVE", "InfiniBand"), ("mlx5_1", "1: DOWN", "Ethernet"),
    ):  # fmt: skip
        port = tmp_path / device / "ports" / "1"
        port.mkdir(parents=True)
        (port / "state").write_text(f"{state}\n")
        (port / "link_layer").write_text(f"{layer}\n")
    assert probe._probe_rdma_ports(tmp_path) == (RdmaPort("mlx5_0", 1, "InfiniBand"),)
    assert probe._probe_rdma_ports(tmp_path / "none") == ()


def test_networks_that_lead_to_other_hosts():
    host = HostFacts("h", 1, interfaces=(
        Interface("lo", ("127.0.0.1/8",)), Interface("docker0", ("172.17.0.1/16",)),
        Interface("eth0", ("10.0.0.7/24", "fe80::1/64", "fd00::7/64")),
    ))  # fmt: skip
    assert host.networks() == ["10.0.0.0/24", "fd00::/64"]
    assert host.interface_in("10.0.0.0/16") == "eth0"
    assert host.interface_in("192.168.0.0/24") is None
    assert host.has_global_ipv6_beside("10.0.0.0/24")
    assert host.owns("10.0.0.7")
    assert not host.owns("10.0.0.8")


def test_the_launching_machine_has_many_names():
    facts = Facts(
        HostFacts("head.example.org", 1, interfaces=(Interface("eth0", ("10.0.0.7/24",)),)),
        "openmpi5", "5.0.11", "/mpirun", addresses={"alias": ("10.0.0.7",), "n1": ("10.0.0.8",)},
    )  # fmt: skip
    own = ["localhost", "head", "head.example.org", "alias", "10.0.0.7", "127.0.0.1", "::1"]
    assert [name for name in own if not facts.is_launcher(name)] == []
    assert [name for name in ("n1", "unknown", "10.0.0.8") if facts.is_launcher(name)] == []


# -- this machine --------------------------------------------------------------------------------


def test_this_machine_as_json_by_a_process():
    done = subprocess.run(
        [sys.executable, "-m", "hpctrain.probe"], capture_output=True, text=True, check=True
    )
    facts = host_facts_from_json(json.loads(done.stdout))
    here = probe_this_host(os.environ)
    assert facts.cores == here.cores >= 1
    assert facts.hostname == here.hostname == os.uname().nodename
    assert facts.user_id == os.getuid()
    assert any("127.0.0.1/8" in interface.addresses for interface in facts.interfaces)


@pytest.mark.parametrize(
    ("visible", "gpus"), [(None, ("A", "A", "B")), ("", ()), ("0,1", ("A", "A")), ("7", ())]
)
def test_gpus_are_those_that_may_be_used(monkeypatch, visible, gpus):
    monkeypatch.setattr(probe, "_probe_gpus", lambda executor: ("A", "A", "B"))
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    facts = probe_this_host(environ, RecordingExecutor(), interfaces=False)
    assert (facts.gpus, facts.interfaces) == (gpus, ())


def test_the_names_are_those_of_the_visible_gpus(monkeypatch):
    monkeypatch.setattr(probe, "_probe_gpus", lambda executor: ("A", "A", "B"))
    environ = {"CUDA_VISIBLE_DEVICES": "2,0"}
    assert probe_this_host(environ, RecordingExecutor(), interfaces=False).gpus == ("B", "A")


def test_mig_devices_are_slots(monkeypatch):
    monkeypatch.setattr(probe, "_probe_gpus", lambda executor: parse_gpu_list(MIG_LIST)[:1])
    environ = {"CUDA_VISIBLE_DEVICES": "MIG-aaaa,MIG-bbbb"}
    facts = probe_this_host(environ, RecordingExecutor(), interfaces=False)
    assert facts.default_slots == 2


def test_names_are_resolved_and_unknown_ones_left_out():
    hosts = [Host("127.0.0.1"), Host("no-such-host.invalid")]
    assert resolve_addresses(hosts) == {"127.0.0.1": ("127.0.0.1",)}
    assert resolve_addresses([]) == {}


# -- other hosts ---------------------------------------------------------------------------------


@pytest.fixture
def cluster(monkeypatch):
    """Hosts that answer from a table: destination → (exit code, stdout, stderr)."""

    class Cluster:
        answers: dict = {}  # noqa: RUF012 (set anew by each test)
        asked: list = []  # noqa: RUF012

    made = Cluster()
    made.asked = []

    def run(self, command, *, timeout_s, stdin=""):
        made.asked.append((self.destination, self.ssh_options, command.argv))
        return Completed(command, *made.answers[self.destination])

    monkeypatch.setattr(SshExecutor, "run", run)
    return made


def answer(facts, noise=""):
    return (0, noise + json.dumps(host_facts_as_json(facts)) + "\n", "")


def test_facts_survive_json():
    assert host_facts_from_json(json.loads(json.dumps(host_facts_as_json(NODE)))) == NODE


def test_every_host_is_asked_once_and_its_answer_kept(cluster, cache):
    hosts = [Host("n1"), Host("n2"), Host("fd00::7")]
    cluster.answers = {
        "n1": answer(NODE), "n2": answer(NODE, noise="motd\n"), "fd00::7": answer(NODE),
        host_alias("fd00::7"): answer(NODE),
    }  # fmt: skip
    facts = probe_hosts(hosts, ("-F", "x"), "/venv/bin/python")
    assert facts == dict.fromkeys(["n1", "n2", "fd00::7"], NODE)
    assert len(cluster.asked) == 3
    assert cluster.asked[0][1:] == (("-F", "x"), ("/venv/bin/python", "-m", "hpctrain.probe"))
    assert read_cached_facts([*hosts, Host("never-asked")]) == facts
    assert len(cluster.asked) == 3
    assert not list(cache.glob("*.json.*"))


def test_an_ipv6_host_is_asked_by_the_name_that_the_ssh_config_explains(cluster):
    cluster.answers = {"fd00::7": answer(NODE), host_alias("fd00::7"): answer(NODE)}
    probe_hosts(parse_hostfile("[fd00::7] user=ada port=2222").hosts, ("-F", "x"))
    assert cluster.asked[0][0] == "ip6-fd00--7"


def test_every_host_that_does_not_answer_is_named_with_its_reason(cluster):
    cluster.answers = {
        "n1": (255, "", "ssh: connect to host n1 port 22: Connection refused\n"),
        "n2": answer(NODE),
        "n3": (124, "", "no answer within 20 s"),
        "n4": (127, "", "bash: /venv/bin/python: No such file or directory"),
        "n5": (0, "Last login: never\n", ""),
        "n6": (0, "", ""),
        "n7": (0, '{"hostname": "n7"}', ""),
    }
    with pytest.raises(ProbeError) as caught:
        probe_hosts([Host(name) for name in cluster.answers], ("-F", "cfg"))
    told = {message.partition(":")[0]: message for message in caught.value.messages}
    assert list(told) == ["n1", "n3", "n4", "n5", "n6", "n7"]
    assert "Connection refused. Try it by hand: ssh -F cfg n1" in told["n1"]
    assert "no answer within 20 s" in told["n3"]
    assert "No such file" in told["n4"]
    assert "got 'Last login: never'" in told["n5"]
    assert "cannot be read" in told["n6"]


# -- what is kept --------------------------------------------------------------------------------

GOOD = host_facts_as_json(NODE)


@pytest.mark.parametrize(
    "kept",
    [
        b"", b"{half", b"null", b"[]", b'"text"', b"7", b"\xff\xfe\0", b"{}",
        json.dumps({**GOOD, "interfaces": None}).encode(),
        json.dumps({**GOOD, "interfaces": [1]}).encode(),
        json.dumps({**GOOD, "rdma_ports": [{"x": 1}]}).encode(),
        json.dumps({**GOOD, "of_a_later_version": 1}).encode(),
        json.dumps({key: value for key, value in GOOD.items() if key != "cores"}).encode(),
        pytest.param(
            json.dumps({**GOOD, "cores": None}).encode(),
        ),
        pytest.param(
            json.dumps({**GOOD, "interfaces": [{"name": "e", "addresses": ["?"]}]}).encode(),
        ),
    ],
)  # fmt: skip
def test_a_damaged_cache_is_no_answer(cache, kept):
    cache.mkdir(parents=True)
    (cache / "n1.json").write_bytes(kept)
    (cache / "n2.json").write_text(json.dumps(GOOD))
    assert read_cached_facts([Host("n1"), Host("n2")]) == {"n2": NODE}


def test_no_cache_at_all(cache):
    assert read_cached_facts([Host("n1")]) == {}
    cache.parent.mkdir()
    cache.touch()
    assert read_cached_facts([Host("n1")]) == {}


def test_a_host_name_never_leaves_the_cache_folder(cluster, cache):
    cluster.answers = {"fe80::1%eth0": answer(NODE), host_alias("fe80::1%eth0"): answer(NODE)}
    probe_hosts([Host("fe80::1%eth0")], ())
    assert [path.parent for path in Path(cache).parent.rglob("*.json")] == [cache]
