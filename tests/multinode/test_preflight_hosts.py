"""``hpctrain preflight`` over ssh: what is broken on one of two nodes is found and named."""

import contextlib
import json
import os
import pwd
import subprocess
import sys
from dataclasses import replace

import launching
import pytest
import small_training
from nodes import Nodes

pytestmark = pytest.mark.needs("mpirun")

TIMEOUT_S = 150.0


class PrivateNodes(Nodes):
    """Nodes with a disk of their own: what one writes, the others do not see."""

    def _plan(self, count):
        plan = super()._plan(count)
        return replace(plan, options=replace(plan.options, private_disk=True, hide=()))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    nodes = Nodes(tmp_path_factory.mktemp("nodes"), 2)
    yield nodes
    nodes.close()


@pytest.fixture(scope="module")
def private_nodes(tmp_path_factory):
    nodes = PrivateNodes(tmp_path_factory.mktemp("private"), 2)
    yield nodes
    nodes.close()


def preflight(nodes, *arguments, env=None):
    """Run it on n0; return exit code and verdicts."""
    argv = [sys.executable, "-m", "hpctrain", "preflight", "--json", "--hosts", str(nodes.hostfile)]
    done = subprocess.run(
        [*nodes.inside("n0"), *argv, *arguments], cwd=nodes.folder, stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"{done.stdout}\n{done.stderr}") from None


def statuses(verdicts, code):
    """Return host → statuses of a check."""
    found = {}
    for verdict in verdicts:
        if verdict["code"] == code:
            for host in verdict["hosts"]:
                found.setdefault(host, []).append(verdict["status"])
    return found


def only(*codes):
    return [word for code in codes for word in ("--only", code)]


BETWEEN = ("reach", "way-back", "host-to-host", "mtu", "clock", "paths", "shared-folder")
ALIKE = ("same-python", "same-hpctrain", "same-kernel", "same-commit")


def test_nodes_in_order_pass_and_nothing_stays(nodes):
    before = set(nodes.folder.iterdir())
    code, verdicts = preflight(nodes, *only(*BETWEEN, *ALIKE))
    assert code == 0, verdicts
    for check in BETWEEN:
        assert statuses(verdicts, check) == {"n1": ["PASS"], "n2": ["PASS"]}, check
    for check in ALIKE:
        assert {v["status"] for v in verdicts if v["code"] == check} <= {"PASS", "SKIP"}
    assert set(nodes.folder.iterdir()) == before


def test_all_checks_on_two_nodes_for_a_training(nodes):
    data = small_training.prepare_data(nodes.folder)
    settings = small_training.as_options({**small_training.SETTINGS, "data.path": str(data)})
    code, verdicts = preflight(nodes, *settings)
    failed = [v for v in verdicts if v["status"] == "FAIL"]
    assert (code, failed) == (0, [])
    assert statuses(verdicts, "data") == {"n1": ["PASS"], "n2": ["PASS"]}
    assert [v["status"] for v in verdicts if v["code"] == "config"] == ["PASS"]


def test_an_sshd_that_is_down_is_a_closed_port(nodes):
    pid = nodes.sshd("n2")
    command = nodes.check_output("n2", "cat", f"/proc/{pid}/cmdline").split("\0")[:-1]
    nodes.check_output("n2", "kill", str(pid))
    launching.wait_until(lambda: not _has_sshd(nodes, "n2"), "sshd to end")
    try:
        code, verdicts = preflight(nodes, *only("reach", "host-to-host"))
    finally:
        # "sshd: /usr/sbin/sshd -D … [listener]" is what it calls itself.
        words = [
            word for word in " ".join(command).split() if word.startswith(("/", "-", "HostKey"))
        ]
        nodes.check_output("n2", *[word for word in words if word != "-D"])
    assert code == 1
    (verdict,) = [v for v in verdicts if v["status"] == "FAIL"]
    assert (verdict["code"], verdict["hosts"]) == ("reach", ["n2"])
    assert verdict["found"].startswith("port: nothing listens on port 22")
    assert "systemctl start ssh" in verdict["fix"]
    (file,) = nodes.folder.glob("runs/.preflight/*/hosts-failed")
    assert file.read_text() == "n2\n"


def test_a_spare_host_is_looked_at_as_well(nodes):
    code, verdicts = preflight(nodes, *only("reach", "slots"), "--spares", "1")
    assert code == 0
    assert statuses(verdicts, "slots") == {"n1": ["PASS"], "n2": ["PASS"]}


def test_the_mpirun_of_the_configuration_is_looked_at(nodes):
    code, verdicts = preflight(nodes, *only("mpi"), "--set", "launch.mpirun=/no/such/mpirun")
    assert code == 1
    assert statuses(verdicts, "mpi") == {"n1": ["FAIL"], "n2": ["FAIL"]}


def _has_sshd(nodes, name):
    with contextlib.suppress(subprocess.CalledProcessError):
        return bool(nodes.check_output(name, "pgrep", "-x", "sshd").strip())
    return False


def test_a_closed_way_to_a_host_is_told_from_a_closed_port(nodes):
    nodes.pull_cable("n2")
    try:
        code, verdicts = preflight(nodes, *only("reach"))
    finally:
        _plug_in(nodes, "n2")
    assert code == 1
    (verdict,) = [v for v in verdicts if v["status"] == "FAIL"]
    assert verdict["hosts"] == ["n2"]
    assert verdict["found"].startswith(("route: ", "port: no answer"))


def _plug_in(nodes, name):
    from hpctrain.clusters.lab.names import SWITCH, Space, switch_port

    switch = Space(nodes.lab, SWITCH).name
    argv = ["ip", "-n", switch, "link", "set", switch_port(name), "up"]
    subprocess.run(argv, check=True, env={"PATH": nodes.path}, timeout=30)
    launching.wait_until(
        lambda: subprocess.run(
            [*nodes.inside("n0"), "ssh", name, "true"], capture_output=True, check=False
        ).returncode == 0,
        f"{name} to answer again",
    )  # fmt: skip


# cBPF for tc(8): what comes in for port 22; and TCP that goes out, but for sshd's own answers.
TO_SSHD = "4,40 0 0 36,21 0 1 22,6 0 0 2,6 0 0 0"
FROM_NODE = "6,48 0 0 23,21 0 3 6,40 0 0 34,21 1 0 22,6 0 0 2,6 0 0 0"


@contextlib.contextmanager
def dropping(nodes, name, direction, bytecode):
    """Drop packets in silence, as a firewall does."""
    where = ("dev", "eth0", direction, "bpf", "da", "bytecode", bytecode)
    try:
        nodes.check_output(name, "tc", "qdisc", "add", "dev", "eth0", "clsact")
        nodes.check_output(name, "tc", "filter", "add", *where)
    except subprocess.CalledProcessError as lacking:
        pytest.skip(f"netns: this kernel cannot filter by tc: {lacking.stderr}")
    try:
        yield
    finally:
        nodes.check_output(name, "tc", "qdisc", "del", "dev", "eth0", "clsact")


def test_a_port_that_a_firewall_blocks_is_told_from_a_closed_one(nodes):
    with dropping(nodes, "n2", "ingress", TO_SSHD):
        code, verdicts = preflight(nodes, *only("reach", "host-to-host"))
    assert code == 1
    (verdict,) = [v for v in verdicts if v["status"] == "FAIL"]
    assert verdict["hosts"] == ["n2"]
    assert verdict["found"].startswith("port: no answer from")
    assert "firewall" in verdict["found"]
    assert statuses(verdicts, "host-to-host") == {"n1": ["SKIP"]}  # n2 is reach's to name


def test_a_host_without_a_way_back_fails(nodes):
    with dropping(nodes, "n2", "egress", FROM_NODE):
        code, verdicts = preflight(nodes, *only("reach", "way-back", "clock", "host-to-host"))
    assert code == 1
    assert statuses(verdicts, "way-back") == {"n1": ["PASS"], "n2": ["FAIL"]}
    assert statuses(verdicts, "reach") == {"n1": ["PASS"], "n2": ["PASS"]}
    assert statuses(verdicts, "clock") == {"n1": ["PASS"], "n2": ["PASS"]}  # by the question itself
    # The launcher starts every host itself, so that n2 cannot log in is said, and no more.
    assert statuses(verdicts, "host-to-host") == {"n1": ["PASS"], "n2": ["SKIP"]}


def test_a_path_that_swallows_large_packets_fails(nodes):
    # The other end of n1's cable takes 1500, and says nothing of what is larger.
    nodes.check_output("n1", "ip", "link", "set", "dev", "eth0", "mtu", "9000")
    try:
        code, verdicts = preflight(nodes, *only("mtu"))
    finally:
        nodes.check_output("n1", "ip", "link", "set", "dev", "eth0", "mtu", "1500")
    assert code == 1
    assert statuses(verdicts, "mtu")["n1"][0] == "FAIL"
    (lost,) = [v for v in verdicts if v["status"] == "FAIL"]
    assert "packets of 9000 bytes are lost on the way to n2, small ones arrive" in lost["found"]


# -- hosts with disks of their own ----------------------------------------------------------------


def test_a_login_shell_that_prints_is_found_and_the_rest_still_judged(private_nodes):
    home = pwd.getpwuid(os.getuid()).pw_dir  # sshd's; HOME may be another here
    noise = "echo Welcome; printf 'no end of line'"
    private_nodes.check_output(
        "n2", "sh", "-c", f"cp {home}/.bashrc /tmp/kept 2>/dev/null; "
        f"printf '%s\\n' \"{noise}\" > {home}/.bashrc"
    )  # fmt: skip
    try:
        code, verdicts = preflight(private_nodes, *only("reach", "same-python"))
    finally:
        private_nodes.check_output(
            "n2", "sh", "-c", f"if [ -e /tmp/kept ]; then mv /tmp/kept {home}/.bashrc; "
            f"else rm {home}/.bashrc; fi"
        )  # fmt: skip
    assert code == 0
    assert statuses(verdicts, "reach") == {"n1": ["PASS"], "n2": ["WARN"]}
    (warning,) = [v for v in verdicts if v["status"] == "WARN"]
    assert "'Welcome'" in warning["found"]
    assert statuses(verdicts, "same-python") == {"n1": ["PASS"], "n2": ["PASS"]}


def test_what_one_host_lacks_is_named_there_alone(private_nodes):
    nodes = private_nodes
    data = small_training.prepare_data(nodes.folder)
    (nodes.folder / "train.py").write_text("import helper\nimport json\n")
    (nodes.folder / "helper.py").write_text("def build(): pass\nopen('ran', 'w')\n")
    shard = next(data.glob("train*"))
    nodes.check_output("n2", "rm", str(nodes.folder / "helper.py"), str(shard))
    settings = small_training.as_options({**small_training.SETTINGS, "data.path": str(data)})
    code, verdicts = preflight(nodes, *only("data", "shared-folder"), *settings)
    assert code == 1
    assert statuses(verdicts, "data") == {"n1": ["PASS"], "n2": ["FAIL"]}
    (missing,) = [v for v in verdicts if v["status"] == "FAIL"]
    assert shard.name in missing["found"]
    assert statuses(verdicts, "shared-folder") == {"n1": ["WARN"], "n2": ["WARN"]}

    program = ("--", sys.executable, "train.py")
    code, verdicts = preflight(nodes, *only("imports", "same-script"), *program)
    assert code == 1
    assert statuses(verdicts, "imports") == {"n1": ["PASS"], "n2": ["FAIL"]}
    (missing,) = [v for v in verdicts if v["code"] == "imports" and v["status"] == "FAIL"]
    assert missing["found"].startswith("train.py:1: No module named 'helper'")
    assert not (nodes.folder / "ran").exists()
