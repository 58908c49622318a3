"""Preflight's checks of networks: subnets, RDMA, EFA, TCPX, ACS, and a firewall between hosts."""

import asyncio
import contextvars
import socket
import time
from dataclasses import asdict, replace

import captured_fabric as captured
import pytest
from preflight_fleets import NO_GPU, fleet, gpu_answer, only, stand_in, statuses

from hpctrain.fabric_facts import parse_plugin_version
from hpctrain.preflight import meet
from hpctrain.preflight.checks import efa as efa_module
from hpctrain.preflight.checks.acs import BRIDGES, judge_acs, parse_acs
from hpctrain.preflight.checks.efa import (
    EFA_PARTS,
    judge_efa,
    parse_libfabric_version,
    parse_numbers,
)
from hpctrain.preflight.checks.firewall import judge_firewall
from hpctrain.preflight.checks.network import judge_network
from hpctrain.preflight.checks.rdma import Port, judge_rdma, probe_ports
from hpctrain.preflight.checks.tcpx import judge_tcpx
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.meet import DROPPED, OPEN, REFUSED
from hpctrain.preflight.meetings import choose_address, plan_meetings, sample_ports
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN

# -- networks ------------------------------------------------------------------------------------

DOCKER = ("docker0", "172.17.0.1/16")
VIRBR = ("virbr0", "192.168.122.1/24")
LO = ("lo", "127.0.0.1/8")


def network(subnet=None, **hosts):
    values = {
        host: [{"name": name, "addresses": [address]} for name, address in interfaces]
        for host, interfaces in hosts.items()
    }
    return list(judge_network(fleet("interfaces", values, subnet=subnet)))


def test_names_differ_and_the_network_counts():
    verdict = only(network(
        n1=[LO, DOCKER, ("eth0", "10.0.0.1/24")], n2=[LO, ("ens5", "10.0.0.2/24"), DOCKER],
        n3=[("ens5", "10.0.0.3/24")],
    ))  # fmt: skip
    assert (verdict.status, verdict.hosts) == (PASS, ("n1", "n2", "n3"))
    assert verdict.found == "10.0.0.0/24: ens5 on 2 hosts, eth0 on n1"


def test_bridges_that_are_everywhere_are_no_way_to_another_host():
    verdict = only(network(
        n1=[LO, DOCKER, VIRBR, ("eth0", "10.0.0.1/24")],
        n2=[LO, DOCKER, VIRBR, ("eth0", "10.0.1.2/24")],
    ))  # fmt: skip
    assert verdict.status == WARN
    assert "no network is common to all hosts: n1 eth0 10.0.0.1/24; n2 eth0" in verdict.found
    assert "docker0 (172.17.0.0/16), virbr0 (192.168.122.0/24) is on all" in verdict.found
    assert "launch.subnet" in verdict.fix


def test_a_host_that_is_not_in_the_chosen_network_fails():
    verdicts = network(
        "10.0.0.0/24",
        n1=[("eth0", "10.0.0.1/24"), ("ib0", "10.9.0.1/16")],
        n2=[("eth0", "10.0.0.2/24"), ("ib0", "10.9.0.2/16")],
        n3=[("ib0", "10.9.0.3/16")],
    )
    assert statuses(verdicts) == [(FAIL, ("n3",)), (PASS, ("n1", "n2"))]
    assert verdicts[0].found == "no interface in 10.0.0.0/24 (has ib0 10.9.0.3/16)"
    assert verdicts[0].fix == "--set launch.subnet=10.9.0.0/16"


def test_dockers_network_is_refused_where_somebody_chose_it():
    verdicts = network("172.17.0.0/16", n1=[DOCKER], n2=[DOCKER])
    assert [verdict.status for verdict in verdicts] == [FAIL, FAIL]
    assert "docker0's, which leads to no other host" in verdicts[0].found


def test_machines_of_google_have_networks_of_one_address():
    own = {"n1": [("ens4", "10.128.0.5/32")], "n2": [("ens4", "10.128.0.6/32")]}
    verdict = only(network(**own))
    assert (verdict.status, verdict.found) == (
        PASS, "10.128.0.4/30: ens4; each host has its address as a /32",
    )  # fmt: skip
    assert only(network("10.128.0.0/20", **own)).status == PASS


# -- RDMA ----------------------------------------------------------------------------------------


def ports(rows, driver="mlx5_core", rate=None):
    return [asdict(Port(name, 1, state, rate or speed, layer, driver))
            for name, state, speed, layer in rows]  # fmt: skip


def rdma(environ=None, **hosts):
    return list(judge_rdma(fleet("rdma-ports", hosts, environ=environ)))


def test_the_same_ports_everywhere():
    verdicts = rdma(n1=ports(captured.AZURE_PORTS), n2=ports(captured.AZURE_PORTS))
    assert statuses(verdicts) == [(PASS, ("n1",)), (PASS, ("n2",))]
    assert verdicts[0].found == "1 x 200 Gb/s InfiniBand, 1 x 40 Gb/s Ethernet up"


def test_a_port_that_is_down_where_others_are_up():
    up = tuple((name, "4: ACTIVE", *rest) for name, _, *rest in captured.ROCE_ONE_DOWN)
    verdicts = rdma(n1=ports(captured.ROCE_ONE_DOWN), n2=ports(up))
    by_host = {verdict.hosts: verdict for verdict in verdicts}
    assert by_host[("n2",)].status == PASS
    verdict = by_host[("n1",)]
    assert verdict.status == FAIL
    assert verdict.found == "1 x 100 Gb/s Ethernet up; not up: mlx5_0 port 1 (DOWN)"
    assert verdict.expected == "2 x 100 Gb/s Ethernet up, as on n2"


def test_a_port_that_is_down_everywhere_is_spare():
    verdicts = rdma(n1=ports(captured.ROCE_ONE_DOWN), n2=ports(captured.ROCE_ONE_DOWN))
    assert [verdict.status for verdict in verdicts] == [PASS, PASS]


def test_a_link_that_came_up_slower_fails():
    slow = ports(captured.AZURE_PORTS, rate="40 Gb/sec (4X QDR)")
    verdicts = rdma(n1=ports(captured.AZURE_PORTS), n2=slow, n3=ports(captured.AZURE_PORTS))
    assert {v.hosts: v.status for v in verdicts} == {
        ("n1",): PASS, ("n3",): PASS, ("n2",): FAIL,
    }  # fmt: skip


ROCE = tuple((name, "4: ACTIVE", *rest) for name, _, *rest in captured.ROCE_ONE_DOWN)


def test_a_host_with_more_or_faster_ports_is_no_failure():
    one, two = ports(ROCE[:1]), ports(ROCE)
    slower = ports(ROCE[:1], rate="25 Gb/sec (1X EDR)")
    for usual, other in ((one, two), (slower, one), ([], one)):
        verdicts = rdma(n1=usual, n2=other, n3=usual)
        found = {verdict.hosts: verdict.status for verdict in verdicts}
        assert found[("n2",)] == WARN
        assert FAIL not in found.values()
    # Of two hosts the slower one is what is wrong.
    assert {v.hosts: v.status for v in rdma(n1=slower, n2=one)} == {
        ("n2",): PASS, ("n1",): FAIL,
    }  # fmt: skip


def test_ranks_that_keep_to_tcp_wait_for_no_port_of_a_plain_nic():
    tcp = {"NCCL_IB_DISABLE": "1"}
    verdicts = rdma(n1=ports(ROCE), n2=ports(ROCE[:1]), n3=ports(ROCE))
    assert [v.status for v in verdicts if v.hosts == ("n2",)] == [FAIL]
    verdicts = rdma(tcp, n1=ports(ROCE), n2=ports(ROCE[:1]), n3=ports(ROCE))
    assert [v.status for v in verdicts if v.hosts == ("n2",)] == [WARN]
    azure = ports(captured.AZURE_PORTS)
    verdicts = rdma(tcp, n1=azure, n2=azure[:1], n3=azure)
    assert [v.status for v in verdicts if v.hosts == ("n2",)] == [FAIL]  # InfiniBand is lost


def test_without_devices_there_is_nothing_to_compare():
    assert statuses(rdma(n1=[], n2=[])) == [(SKIP, ("n1", "n2"))]
    down = ports([captured.ROCE_ONE_DOWN[0]])
    assert [v.status for v in rdma(n1=down, n2=down)] == [WARN, WARN]


def test_ports_are_read_from_the_kernels_files(tmp_path):
    for name, state, rate, layer in captured.ROCE_ONE_DOWN:
        folder = tmp_path / name / "ports" / "1"
        folder.mkdir(parents=True)
        for file, text in (("state", state), ("rate", rate), ("link_layer", layer)):
            (folder / file).write_text(f"{text}\n")
    found = probe_ports(tmp_path)
    assert [(port.device, port.number, port.is_up) for port in found] == [
        ("mlx5_0", 1, False), ("mlx5_1", 1, True),
    ]  # fmt: skip
    assert str(found[1].kind) == "100 Gb/s Ethernet"


# -- clouds --------------------------------------------------------------------------------------

EFA_PORT = (("rdmap47s0", "4: ACTIVE", "100 Gb/sec (4X EDR)", "Unspecified"),)


def efa(libfabric, plugin, path="/opt/amazon/ofi-nccl/lib/libnccl-net.so"):
    return {"libfabric": libfabric, "plugin": path if plugin else "", "plugin_version": plugin}


def judge_parts(**hosts):
    return list(judge_efa(fleet(
        "efa-parts", hosts, rdma_ports={host: ports(EFA_PORT, "efa") for host in hosts},
    )))  # fmt: skip


def test_versions_of_libfabric_and_its_plugin():
    assert parse_libfabric_version(captured.FI_INFO_EFA) == "1.22.0amzn5.0"
    assert parse_libfabric_version(captured.FI_INFO_OWN) == "1.21.0a1"
    assert parse_libfabric_version("") is None
    assert parse_numbers("1.22.0amzn5.0") == (1, 22, 0)
    assert parse_plugin_version(captured.OFI_NCCL_NEW) == "1.16.2"
    assert parse_plugin_version(captured.OFI_NCCL_OLD) == "1.5.0aws"
    assert parse_plugin_version(b"\x7fELF") is None


@pytest.mark.parametrize(
    ("value", "status", "found"),
    [
        (efa("1.22.0amzn5.0", "1.16.2"), PASS, "libfabric 1.22.0amzn5.0, aws-ofi-nccl 1.16.2"),
        (efa("1.22.0", "1.5.0aws"), WARN, "aws-ofi-nccl 1.5.0aws"),
        (efa("1.17.1", "1.16.2"), WARN, "libfabric 1.17.1"),
        (efa("1.22.0", None), WARN, "NCCL would use TCP"),
        # A container with the library alone: no program and no list tells its version.
        (efa(None, "1.16.2"), WARN, "libfabric unknown"),
        (efa(None, None), WARN, "libfabric unknown"),
    ],
)
def test_parts_for_efa(value, status, found):
    verdict = only(judge_parts(n1=value))
    assert verdict.status == status
    assert found in verdict.found


def test_versions_that_differ_between_hosts():
    new, newer = efa("1.22.0", "1.16.2"), efa("2.1.0", "1.16.2")
    verdicts = judge_parts(n1=new, n2=new, n3=newer)
    assert statuses(verdicts)[3:] == [(WARN, ("n3",))]


def test_parts_are_looked_for_where_there_is_an_adapter(tmp_path, monkeypatch):
    monkeypatch.setattr(efa_module, "_FI_INFO", ("fi_info",))
    stand_in(tmp_path, monkeypatch, "fi_info", captured.FI_INFO_EFA)
    (tmp_path / "libnccl-net.so").write_bytes(b"\x7fELF" + captured.OFI_NCCL_NEW)
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/none:{tmp_path}")
    monkeypatch.setattr(efa_module, "probe_ports", lambda: [])
    assert EFA_PARTS.look(NodeTask(host="n1")) is None
    adapter = Port("rdmap47s0", 1, "4: ACTIVE", "100 Gb/sec (4X EDR)", "Unspecified", "efa")
    monkeypatch.setattr(efa_module, "probe_ports", lambda: [adapter])
    assert EFA_PARTS.look(NodeTask(host="n1")) == {
        "libfabric": "1.22.0amzn5.0", "plugin": str(tmp_path / "libnccl-net.so"),
        "plugin_version": "1.16.2",
    }  # fmt: skip
    # What the installer has noted down counts first.
    noted = {"libfabric": "2.1.0amzn1"}
    monkeypatch.setattr(efa_module, "probe_efa_packages", lambda: noted)
    assert EFA_PARTS.look(NodeTask(host="n1"))["libfabric"] == "2.1.0amzn1"


def test_without_efa_nothing_is_said():
    assert list(judge_efa(fleet("efa-parts", {"n1": None}, rdma_ports={"n1": []}))) == []


def a3(names):
    answer = gpu_answer()
    answer["gpus"] = [{**answer["gpus"][0], "name": name} for name in names]
    return answer


@pytest.mark.parametrize(
    ("parts", "names", "expected"),
    [
        (["gIB"], ["NVIDIA H200"] * 8, [PASS]),
        (["GPUDirect-TCPX"], ["NVIDIA H100 80GB HBM3"] * 8, [PASS]),
        ([], ["NVIDIA H100 80GB HBM3"] * 8, [WARN]),
        (["gIB"], ["NVIDIA H100 80GB HBM3"] * 8, [WARN]),
        ([], ["NVIDIA H100 80GB HBM3"], []),  # a slice of a machine has plain gVNIC
        ([], ["NVIDIA L4"] * 8, []),
        (None, ["NVIDIA H200"] * 8, []),  # not on Google Cloud
    ],
)
def test_plugins_of_googles_machines(parts, names, expected):
    found = judge_tcpx(fleet("tcpx-parts", {"n1": parts}, gpu_states={"n1": a3(names)}))
    assert [verdict.status for verdict in found] == expected


# -- ACS -----------------------------------------------------------------------------------------


def acs(text, *, virtual=False, gpus=None):
    bridges, allowed = parse_acs(text)
    value = {"bridges": bridges if allowed else None, "why": "root alone", "virtual": virtual}
    return list(judge_acs(fleet("pci-bridges", {"n1": value}, gpu_states={
        "n1": gpu_answer() if gpus is None else gpus
    })))  # fmt: skip


def test_bridges_with_access_control():
    assert parse_acs(captured.PLX_ACS_OFF) == ([], True)
    assert parse_acs(captured.MILAN_ACS_ON) == (["40:01.1", "40:01.3"], True)
    assert only(acs(captured.PLX_ACS_OFF)).status == PASS
    verdict = only(acs(captured.MILAN_ACS_ON))
    assert verdict.status == WARN
    assert "on at 2 PCI bridges (40:01.1, 40:01.3)" in verdict.found
    assert verdict.fix.startswith("sudo setpci -s 40:01.1 ECAP_ACS+0x6.w=0000")


def test_access_control_of_virtual_machines_and_single_gpus_is_left_alone():
    assert only(acs(captured.MILAN_ACS_ON, virtual=True)).status == SKIP
    assert acs(captured.MILAN_ACS_ON, gpus=NO_GPU) == []
    assert only(acs("00:01.0 PCI bridge: x\n\tCapabilities: <access denied>\n")).status == SKIP


def test_bridges_are_asked_by_lspci(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, "lspci", captured.MILAN_ACS_ON)
    assert BRIDGES.look(NodeTask(host="n1"))["bridges"] == ["40:01.1", "40:01.3"]
    monkeypatch.setenv("PATH", "")
    assert BRIDGES.look(NodeTask(host="n1"))["why"] == "lspci is not installed"


# -- who reaches whom ----------------------------------------------------------------------------


def meeting(tries, *, from_s=0.0, to_s=12.0, listening=(1056, 26000, 46884)):
    return {
        "from_s": from_s, "tried_s": to_s - 1, "to_s": to_s, "listening": list(listening),
        "heard": [], "tries": tries,
    }  # fmt: skip


ALL_OPEN = {"1024-1151": OPEN, "20000-32000": OPEN, "32768-60999": OPEN}
HIGH_DROPPED = {**ALL_OPEN, "20000-32000": DROPPED, "32768-60999": DROPPED}


def met(unreachable=None, **hosts):
    known = fleet("firewall", hosts)
    return list(judge_firewall(Fleet(
        tasks=known.tasks, answers=known.answers, unreachable=unreachable or {},
    )))  # fmt: skip


def test_hosts_that_reach_each_other():
    verdict = only(met(n1=meeting({"n2": ALL_OPEN}), n2=meeting({"n1": ALL_OPEN})))
    assert (verdict.status, verdict.hosts) == (PASS, ("n1", "n2"))
    assert "1024-1151, 20000-32000, 32768-60999" in verdict.found


def test_what_is_dropped_is_named_with_the_pair_and_the_ports():
    verdicts = met(n1=meeting({"n2": HIGH_DROPPED}), n2=meeting({"n1": ALL_OPEN}))
    assert statuses(verdicts) == [(FAIL, ("n2",)), (PASS, ("n2",))]
    assert verdicts[0].found == "n1 cannot reach n2 on TCP 20000-32000, 32768-60999: timed out"
    assert "on n2: firewall-cmd --zone=trusted --add-source=n1 ||" in verdicts[0].fix


def test_a_fix_names_the_address_that_is_stopped():
    known = fleet("firewall", {"n1": meeting({"n2": HIGH_DROPPED}), "n2": meeting({})})
    task = replace(known.tasks["n2"], hosts={"n1": ("10.0.0.1",)})
    fixed = replace(known, tasks={**known.tasks, "n2": task})
    verdict = next(each for each in judge_firewall(fixed) if each.status == FAIL)
    assert "--add-source=10.0.0.1 || ufw allow from 10.0.0.1" in verdict.fix


def test_a_refusal_counts_where_the_other_listened():
    refused = {**ALL_OPEN, "20000-32000": REFUSED}
    verdicts = met(n1=meeting({"n2": refused}), n2=meeting({"n1": ALL_OPEN}))
    assert verdicts[0].status == FAIL
    assert verdicts[0].found.endswith("TCP 20000-32000: refused")
    late = meeting({"n1": ALL_OPEN}, from_s=20.0, to_s=32.0)
    assert met(n1=meeting({"n2": refused}), n2=late)[0].status == WARN
    deaf = meeting({"n1": ALL_OPEN}, listening=(1056,))
    assert met(n1=meeting({"n2": refused}), n2=deaf)[0].status == WARN


def test_of_more_hosts_than_are_asked_at_once_some_are_not_tried_together():
    hosts = [f"n{number}" for number in range(65)]
    known = {
        host: meeting({each: ALL_OPEN for each in hosts[max(0, place - 1) : place] or ["n1"]})
        for place, host in enumerate(hosts)
    }
    known["n64"] = meeting({"n63": dict.fromkeys(ALL_OPEN, REFUSED)}, from_s=30.0, to_s=42.0)
    verdicts = met(**known)
    assert statuses(verdicts) == [(SKIP, ("n64", "n63")), (PASS, tuple(hosts[:64]))]
    assert "n64 to n63: refused, but they did not listen together" in verdicts[0].found


def test_a_host_that_is_down_is_no_firewall():
    down = met({"n2": "ssh: timed out"}, n1=meeting({"n2": HIGH_DROPPED, "n3": ALL_OPEN}),
               n3=meeting({"n2": HIGH_DROPPED, "n1": ALL_OPEN}))  # fmt: skip
    assert statuses(down) == [(PASS, ("n1", "n3"))]


def test_one_host_behind_a_firewall_is_the_one_that_is_left_out():
    verdicts = met(
        n1=meeting({"n2": HIGH_DROPPED, "n3": ALL_OPEN}),
        n2=meeting({"n3": ALL_OPEN, "n1": ALL_OPEN}),
        n3=meeting({"n1": ALL_OPEN, "n2": HIGH_DROPPED}),
    )
    failed = [verdict for verdict in verdicts if verdict.status == FAIL]
    assert only(failed).hosts == ("n2",)
    assert "n1 cannot reach n2, n3 cannot reach n2 on TCP" in only(failed).found


def test_many_pairs_are_one_line():
    hosts = [f"n{number}" for number in range(200)]
    verdicts = met(**{
        host: meeting({hosts[(place + 1) % 200]: HIGH_DROPPED}) for place, host in enumerate(hosts)
    })  # fmt: skip
    failed = only(verdict for verdict in verdicts if verdict.status == FAIL)
    assert "and 196 pairs more" in failed.found
    assert len(failed.hosts) == 200


# -- the meeting itself, on loopback ---------------------------------------------------------------


def free_range(count=60, above=41000):
    """Return a range of ports of which nobody uses those that are sampled."""
    for first in range(above, 60000, count):
        try:
            for port in sample_ports((first, first + count)):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first, first + count
    raise AssertionError("no free ports")


def test_two_that_meet_hear_of_each_other_and_are_done(monkeypatch):
    own_address = contextvars.ContextVar("own_address")

    async def listen(port, welcome):
        return await asyncio.start_server(welcome, own_address.get(), port)

    async def meet_at(address, meeting):
        own_address.set(address)
        return await meet.meet(meeting)

    async def both():
        return await asyncio.gather(
            meet_at("127.0.0.1", meet.Meeting("a", ranges, {"b": "127.0.0.2"}, 600.0)),
            meet_at("127.0.0.2", meet.Meeting("b", ranges, {"a": "127.0.0.1"}, 600.0)),
        )

    # Two hosts on one machine: each listens on an address of its own.
    monkeypatch.setattr(meet, "listen", listen)
    ranges = [free_range(60), free_range(90, above=50000)]
    first, second = asyncio.run(asyncio.wait_for(both(), 60.0))  # not the 600 s
    for answer, neighbour in ((first, "b"), (second, "a")):
        assert set(answer["tries"][neighbour].values()) == {OPEN}
        assert len(answer["tries"][neighbour]) == 2
        assert answer["heard"] == [neighbour]
        assert len(answer["listening"]) == 6


def test_a_port_that_nobody_listens_on_is_refused_until_the_end(monkeypatch):
    async def nobody(port, welcome):
        return None

    monkeypatch.setattr(meet, "listen", nobody)
    answer = asyncio.run(meet.meet(meet.Meeting("a", [free_range()], {"b": "127.0.0.1"}, 0.3)))
    assert set(answer["tries"]["b"].values()) == {REFUSED}
    assert answer["to_s"] - answer["from_s"] >= 0.3


def test_a_listener_that_comes_later_is_found():
    ports = free_range()

    async def late():
        async def then_listen():
            await asyncio.sleep(0.1)
            return await meet.listen(sample_ports(ports)[0], lambda r, w: w.close())

        task = asyncio.create_task(then_listen())
        deadline_s = time.monotonic() + 20.0
        outcome = await meet.try_range("127.0.0.1", ports, "a", deadline_s)
        (await task).close()
        return outcome

    assert asyncio.run(late()) == OPEN


# -- who meets whom ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 64, 65, 129, 4000])
def test_every_host_tries_those_that_are_asked_just_before_and_after_it(count):
    hosts = [f"n{number}" for number in range(count)]
    tries = {host: each["neighbours"] for host, each in plan_meetings(hosts, {}).items()}
    is_ring = count <= 64
    for place, host in enumerate(hosts):
        around = {(place + step) % count for step in (1, -1)}
        if not is_ring:  # its ends would not be asked at the same time
            around = {place + step for step in (1, -1)} & set(range(count))
        assert set(tries[host]) == {hosts[each] for each in around}
        assert all(host in tries[name] for name in tries[host])
    assert plan_meetings(["a"], {})["a"]["neighbours"] == []


@pytest.mark.parametrize(
    ("known", "subnet", "launcher", "expected"),
    [
        (("10.0.0.2",), None, (), "10.0.0.2"),
        (("192.168.1.2", "10.0.0.2"), "10.0.0.0/24", (), "10.0.0.2"),
        (("192.168.1.2",), "10.0.0.0/24", (), "192.168.1.2"),
        (("127.0.1.1",), None, ("10.0.0.9",), "10.0.0.9"),  # the launching machine's own name
        (("fe80::1%eth0", "10.0.0.2"), None, (), "10.0.0.2"),
        ((), "10.0.0.0/24", ("10.0.0.9",), None),
    ],
)
def test_the_address_at_which_a_neighbour_is_tried(known, subnet, launcher, expected):
    assert choose_address(known, subnet, launcher) == expected
