"""A node's first boot, for real but for apt, in a mount namespace with folders of its own."""

import os
import subprocess
import sys

import pytest

from hpctrain.clusters.cloud.root import MODULES

SCRIPT = MODULES / "cluster_layout/files/prepare_node.sh"
OWN = "for each in /var/lib /var/log /opt; do mount -t tmpfs none $each || exit; done; "
PROGRAMS = {
    # The network comes with the third call.
    "apt-get": 'echo "$*" >> {calls}\n[ "$(wc -l < {calls})" -ge {works_at} ]\n',
    "dpkg": 'grep -q "install.* $2" {calls} && [ "$(wc -l < {calls})" -ge {works_at} ]\n',
    "python3": 'shift 2; exec {python} -m venv --without-pip "$@"\n',  # pip takes it 10 s
}


def can_unshare():
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and done.returncode == 0


pytestmark = pytest.mark.skipif(not can_unshare(), reason="needs root and mount namespaces")


@pytest.fixture
def prepare(tmp_path):
    """Run the script and a look at what it left; apt works from its Nth call on."""

    def run(script, *, works_at):
        calls = tmp_path / "calls"
        calls.touch()
        (tmp_path / "bin").mkdir()
        for name, text in PROGRAMS.items():
            path = tmp_path / "bin" / name
            text = text.format(calls=calls, works_at=works_at, python=sys.executable)
            path.write_text(f"#!/bin/sh\n{text}")
            path.chmod(0o755)
        environ = {
            **os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PAUSE_S": "0.1",
            "PATIENCE_S": "3", "PREPARE": str(SCRIPT),
        }  # fmt: skip
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", OWN + script],
            env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout, calls.read_text()

    return run


def test_it_waits_for_the_network_and_leaves_its_mark(prepare):
    look = "ls /var/lib/hpctrain; /opt/hpctrain/venv/bin/python -c 'print(1 + 1)'"
    out, calls = prepare(f'sh "$PREPARE" root; {look}', works_at=3)
    assert out.split() == ["asked", "ready", "2"]
    assert calls.count("update -o APT::Update::Error-Mode=any") == 3
    assert "install -y" in calls
    assert "rsync" in calls


def test_without_a_network_it_says_so_and_can_be_tried_again_without_words(prepare):
    again = 'sh "$PREPARE"; ls /var/lib/hpctrain'
    out, _ = prepare(f'sh "$PREPARE" root; cat /var/lib/hpctrain/failed; {again}', works_at=10**6)
    assert out.startswith("exit code 1")
    assert out.split()[-2:] == ["asked", "failed"]
