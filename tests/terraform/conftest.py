"""A home of its own for each test, AWS's stand-in server, and nodes that answer ssh."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import terraforming

from hpctrain.clusters.cluster_dir import ClusterDirectory
from hpctrain.executor import Command, Completed, render_command

ANSWERS = {
    r"nvidia-smi -L": "GPU 0: made up\n",
    r"ssh_host_ed25519_key\.pub": "ssh-ed25519 AAAAhostkey root@node\n",
    r"cd /var/lib/hpctrain": "ready\n",
    r"pip list": "python 3.10.12\ntorch==2.13.0\n",
    r"sysconfig": "/opt/hpctrain/venv/lib/python3.10/site-packages\n",
    r"": "",
}


class FakeNodes:
    """The one seam: what runs ssh and rsync. moto and the google stand-in make no machines."""

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self.commands: list[Command] = []
        self.answers: dict[str, tuple[int, str, str]] = {}
        self.hold = threading.Event()  # where it is cleared, no node is ready
        self.hold.set()

    def run(self, command: Command, *, timeout_s: float, stdin: str = "") -> Completed:
        self.commands.append(command)
        line = render_command(command)
        for pattern, (code, out, err) in self.answers.items():
            if re.search(pattern, line):
                return Completed(command, code, out, err)
        out = next(text for pattern, text in ANSWERS.items() if re.search(pattern, line))
        if "nvidia-smi" in line:
            out *= self.gpus
        if out == "ready\n":
            self.hold.wait(timeout=60)
        return Completed(command, 0, out, "")


@dataclass(frozen=True)
class Done:
    """What a command of hpctrain left behind."""

    code: int
    out: str
    err: str


@dataclass
class Home:
    """A user's folders, and hpctrain as that user calls it, in this process."""

    path: Path
    capsys: pytest.CaptureFixture[str]
    nodes: FakeNodes = field(default_factory=lambda: FakeNodes(1))

    def hpctrain(self, *arguments: str) -> Done:
        """Run ``hpctrain cluster ARGUMENTS``."""
        from hpctrain.cli import main

        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["cluster", *arguments])
        out, err = self.capsys.readouterr()
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0 if code is None else 1, out, err)

    def directory(self, name: str) -> ClusterDirectory:
        return ClusterDirectory(name, self.path / "state" / "hpctrain" / "clusters")


@pytest.fixture(scope="session")
def terraform_config(tmp_path_factory) -> Path:
    """The configuration that every Terraform of these tests gets."""
    return terraforming.write_cli_config(tmp_path_factory.mktemp("terraform"))


@pytest.fixture
def home(tmp_path, monkeypatch, capsys, terraform_config) -> Home:
    """Folders of a test's own; Terraform's providers come from mirrors, the nodes are fake."""
    from hpctrain.clusters import cloud

    made = Home(tmp_path, capsys)
    for name in ("state", "cache", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", str(terraform_config))
    # A mirror needs no cache, and a cache would be filled with copies of 600 MB.
    monkeypatch.setenv("TF_PLUGIN_CACHE_DIR", "")
    monkeypatch.setenv("GOOGLE_STANDIN_FOLDER", str(tmp_path / "google"))
    monkeypatch.setattr(cloud, "ssh_executor", lambda: made.nodes)
    return made


@pytest.fixture(scope="session")
def aws_url():
    """A local server that answers as AWS does."""
    import tiers

    tiers.require("aws-provider", "moto")
    import moto_aws

    with moto_aws.aws_server() as url:
        yield url


@pytest.fixture
def aws(aws_url, monkeypatch, tmp_path):
    """AWS's stand-in for one test, empty; gives a client of its EC2."""
    import boto3
    import moto_aws
    from moto.core.models import botocore_stubber  # noqa: F401 - loads the backends

    monkeypatch.setenv("AWS_ENDPOINT_URL", aws_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(moto_aws.Failures, "calls", {})
    return boto3.client("ec2", region_name="us-east-1")
