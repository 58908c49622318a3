"""``hpctrain preflight`` between real nodes: a firewall, a full disk, small limits."""

import json
import subprocess
import sys

import pytest
from nodes import nodes_up

from hpctrain.preflight.meetings import MPI_PORTS, sample_ports
from hpctrain.preflight.verdict import FAIL, PASS

pytestmark = pytest.mark.needs("mpirun")

CHECKS = (
    "network", "firewall", "rdma", "disk", "shm", "open-files", "memory", "cores", "gpu-count",
    "memlock",
)  # fmt: skip


@pytest.fixture
def nodes(tmp_path):
    with nodes_up(tmp_path, 3) as up:
        yield up


def preflight(nodes, *arguments, code=None):
    """Run the command on n0; return code → verdicts."""
    words = [word for name in CHECKS for word in ("--only", name)]
    argv = [
        *nodes.inside("n0"), sys.executable, "-m", "hpctrain", "preflight",
        "--hosts", str(nodes.hostfile), "--json", *words, *arguments,
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, cwd=nodes.folder, timeout=120)
    assert done.stdout, done.stderr
    assert code is None or done.returncode == code, done.stdout
    found = {}
    for verdict in json.loads(done.stdout):
        found.setdefault(verdict["code"], []).append(verdict)
    return found


def failed_hosts(verdicts):
    return {host for v in verdicts if v["status"] == FAIL for host in v["hosts"]}


def test_whole_nodes_pass(nodes):
    found = preflight(nodes, "--set", "train.steps=10", code=0)
    (network,) = found["network"]
    assert network["status"] == PASS
    assert network["found"].endswith(": eth0")
    (firewall,) = found["firewall"]
    assert (firewall["status"], firewall["hosts"]) == (PASS, ["n1", "n2", "n3"])
    assert {v["status"] for name in ("disk", "shm", "open-files") for v in found[name]} == {PASS}
    assert found["disk"][0]["found"].startswith("9.6 MiB needed (1 checkpoint of")


def test_what_comes_in_is_dropped(nodes):
    """n2 drops what comes in on ports of torch.distributed: its kernel routes it nowhere."""
    rule = "iif eth0 ipproto tcp dport 20000-32000"
    # Before the table of local addresses, which comes first otherwise.
    for argv in (f"add pref 5 {rule} blackhole", "add pref 10 lookup local", "del pref 0"):
        nodes.check_output("n2", "ip", "rule", *argv.split())
    verdicts = preflight(nodes, code=1)["firewall"]
    failed = [verdict for verdict in verdicts if verdict["status"] == FAIL]
    assert [verdict["hosts"] for verdict in failed] == [["n2"]]
    assert failed[0]["found"] in (
        "n1 cannot reach n2, n3 cannot reach n2 on TCP 20000-32000: timed out",
        "n3 cannot reach n2, n1 cannot reach n2 on TCP 20000-32000: timed out",
    )


def test_what_goes_out_is_refused_by_the_host_itself(nodes):
    ports = "-".join(str(port) for port in MPI_PORTS)
    rule = f"add pref 5 ipproto tcp dport {ports} prohibit"
    nodes.check_output("n3", "ip", "rule", *rule.split())
    assert sample_ports(MPI_PORTS)[0] >= MPI_PORTS[0]
    verdicts = preflight(nodes, code=1)["firewall"]
    failed = [verdict for verdict in verdicts if verdict["status"] == FAIL]
    assert [verdict["hosts"] for verdict in failed] == [["n3"]]
    assert "n3 cannot reach n1" in failed[0]["found"]
    assert failed[0]["found"].endswith("on TCP 1024-1151: Permission denied")


def test_small_disks_limits_and_shared_memory(nodes):
    runs = nodes.folder / "runs"
    runs.mkdir(exist_ok=True)
    nodes.check_output("n1", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(runs))
    nodes.check_output("n2", "mount", "-o", "remount,size=4m", "/dev/shm")
    limit = ["prlimit", "--nofile=100:100", "--pid", str(nodes.sshd("n3"))]
    nodes.check_output("n3", *limit)
    found = preflight(nodes, "--set", "train.steps=10", code=1)
    assert failed_hosts(found["disk"]) == {"n1"}
    (disk,) = [verdict for verdict in found["disk"] if verdict["status"] == FAIL]
    assert disk["found"].startswith("1.0 MiB free at ")
    assert failed_hosts(found["shm"]) == {"n2"}
    assert failed_hosts(found["open-files"]) == {"n3"}
    assert {v["status"] for v in found["firewall"]} == {PASS}


def test_a_network_that_one_node_is_not_in(nodes):
    for name in ("n1", "n2"):
        number = name[1:]
        nodes.check_output(name, "ip", "addr", "add", f"10.99.0.{number}/24", "dev", "eth0")
    nodes.check_output("n0", "ip", "addr", "add", "10.99.0.9/24", "dev", "eth0")
    found = preflight(nodes, "--set", "launch.subnet=10.99.0.0/24")
    assert failed_hosts(found["network"]) == {"n3"}
    (failed,) = [verdict for verdict in found["network"] if verdict["status"] == FAIL]
    assert failed["found"].startswith("no interface in 10.99.0.0/24 (has eth0 ")
