"""Waiting for nodes, setting them up, what is said when it goes wrong; ssh is recorded."""

import subprocess

import pytest

from hpctrain.clusters import head_run
from hpctrain.clusters.cloud import boot_wait, node_setup
from hpctrain.clusters.cloud.access import NodeAccess, forget_hosts
from hpctrain.clusters.cloud.boot_wait import wait_for_nodes
from hpctrain.clusters.cloud.node_setup import NodeSetup
from hpctrain.clusters.cloud.root import MODULES
from hpctrain.clusters.cluster_dir import ClusterNode
from hpctrain.errors import ClusterError
from hpctrain.executor import Completed, RecordingExecutor

NODES = (ClusterNode("c-0", "10.0.0.4", 2, "198.51.100.9"), ClusterNode("c-1", "10.0.0.5", 2))
VERSIONS = "python 3.10.12\ntorch==2.13.0\n"


class Lines:
    """A console that keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)

    warn = say


class Booting:
    """Each node answers differently each time it is asked: the last answer stays."""

    def __init__(self, answers):
        self.answers = {name: list(each) for name, each in answers.items()}

    def run(self, command, *, timeout_s, stdin=""):
        name = command.argv[command.argv.index("--") + 1]
        answers = self.answers[name]
        code, out, err = answers.pop(0) if len(answers) > 1 else answers[0]
        return Completed(command, code, out, err)


def wait(tmp_path, answers, timeout_s=60.0):
    clock = iter(range(0, 10000, 10))
    console = Lines()
    access = NodeAccess(tmp_path / "ssh_config", Booting(answers))
    wait_for_nodes(
        access, ["c-0", "c-1"], timeout_s, console, sleep=lambda s: None, clock=lambda: next(clock)
    )
    return console.lines


def test_waits_until_every_node_is_ready(tmp_path):
    refused, booting, ready = (255, "", "Connection refused"), (0, "", ""), (0, "ready\n", "")
    lines = wait(tmp_path, {"c-0": [ready], "c-1": [refused, booting, ready]})
    assert [line.split(" after")[0] for line in lines] == [
        "  c-0: ready", "  c-1: unreachable", "  c-1: booting", "  c-1: ready",
    ]  # fmt: skip


def test_a_node_whose_set_up_failed_ends_the_wait_at_once(tmp_path):
    failed = (0, "exit code 1\nno space left on device\n", "")
    answers = {"c-0": [(0, "", "")], "c-1": [(0, "", ""), failed]}
    with pytest.raises(ClusterError, match="c-1: its set-up failed: exit code 1 no space left"):
        wait(tmp_path, answers)


def test_a_set_up_that_had_failed_before_is_done_again(tmp_path):
    failed, begun, ready = (0, "exit code 1\n", ""), (0, "", ""), (0, "ready\n", "")
    lines = wait(tmp_path, {"c-0": [ready], "c-1": [failed, begun, begun, ready]})
    assert "  c-1: its set-up failed before; it is done again" in lines
    with pytest.raises(ClusterError, match="c-1: its set-up failed: exit code 1"):
        wait(tmp_path, {"c-0": [ready], "c-1": [failed, begun, failed]})


def test_those_that_are_late_are_named_with_what_to_do(tmp_path):
    answers = {"c-0": [(0, "", "")], "c-1": [(255, "", "Connection timed out")]}
    with pytest.raises(ClusterError) as late:
        wait(tmp_path, answers)
    assert len(late.value.messages) == 2
    assert "c-0: not ready within 60 s, got booting; expected ready. See /var/log" in str(
        late.value
    )
    assert "c-1: not ready within 60 s, got unreachable (Connection timed out)" in str(late.value)
    assert "ssh_from_cidrs" in str(late.value)


def setup(tmp_path, answers):
    (tmp_path / "node_key").write_text("the private half")
    (tmp_path / "node_key.pub").write_text("ssh-ed25519 BBBB hpctrain nodes\n")
    executor = RecordingExecutor({**answers, "": (0, "", "")})
    return NodeSetup(NodeAccess(tmp_path / "ssh_config", executor), NODES, Lines()), executor


def test_keys_travel_by_standard_input_alone(tmp_path):
    host_key = {"ssh_host_ed25519_key": (0, "ssh-ed25519 HHHH root@x\n", "")}
    made, executor = setup(tmp_path, host_key)
    made.exchange_keys(tmp_path)
    lines = [" ".join(command.argv) for command in executor.commands]
    assert not any("the private half" in line for line in lines)
    assert sum("ssh-ed25519 BBBB" in line for line in lines) == 2  # the public half, on each


def test_install_brings_this_hpctrain_and_builds_horovod_everywhere(tmp_path):
    made, executor = setup(tmp_path, {"sysconfig": (0, "/opt/x/site-packages\n", "")})
    made.install()
    lines = [" ".join(command.argv) for command in executor.commands]
    copies = [line for line in lines if line.startswith("rsync")]
    assert len(copies) == 2
    assert all(
        "-L --delete" in line and ":/opt/x/site-packages/hpctrain/" in line for line in copies
    )
    assert sum("install-horovod" in line for line in lines) == 2


def test_the_check_names_everything_that_is_wrong(tmp_path):
    made, _ = setup(tmp_path, {
        r"c-1 .*pip list": (0, VERSIONS.replace("2.13.0", "2.12.0"), ""),
        r"pip list": (0, VERSIONS, ""),
        r"c-0 .*nvidia-smi": (0, "GPU 0\nGPU 1\n", ""),
        r"c-1 .*nvidia-smi": (127, "", "nvidia-smi: not found"),
        r"10\.0\.0\.5 true": (255, "", "Permission denied (publickey)"),
    })  # fmt: skip
    with pytest.raises(ClusterError) as wrong:
        made.check()
    assert list(wrong.value.messages) == [
        "versions of torch differ: 2.13.0 on c-0, 2.12.0 on c-1; expected one. "
        "Make the cluster anew.",
        "c-1: GPUs, got 0 (nvidia-smi: not found); expected 2.",
        "c-0 cannot log in to c-1: Permission denied (publickey).",
    ]


def test_only_the_lines_of_changed_addresses_are_forgotten():
    known = "10.0.0.4,c-0 ssh-ed25519 A\n10.0.0.44 ssh-ed25519 B\n"
    assert forget_hosts(known, ["10.0.0.4"]) == "10.0.0.44 ssh-ed25519 B\n"


SCRIPTS = {
    "prepare_node.sh": ("sh", (MODULES / "cluster_layout/files/prepare_node.sh").read_text()),
    "the look at a node": ("sh", boot_wait._LOOK),
    "a set-up once more": ("sh", boot_wait._AGAIN),
    "the versions": ("sh", node_setup._VERSIONS),
    "a file for ssh": ("sh", node_setup._PUT),
    "a key for ssh": ("sh", node_setup._ALLOW),
    "the start of a run": ("bash", head_run._START),
    "the following of a run": ("sh", head_run._FOLLOW),
    "the state of a run": ("sh", head_run._STATE),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_nodes_are_told_is_shell(name):
    shell, text = SCRIPTS[name]
    done = subprocess.run([shell, "-n"], input=text, text=True, capture_output=True, check=False)
    assert done.stderr == ""
