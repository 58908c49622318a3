"""AWS: are libfabric and NCCL's plugin there, and new enough, where there are EFA adapters?

Versions: AWS, "EFA cheat sheet" of aws-ofi-nccl: from libfabric 1.18 and aws-ofi-nccl 1.7 on
nothing has to be set by hand. Without the plugin NCCL uses TCP and says nothing.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpctrain.executor import Command, LocalExecutor
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.checks.rdma import RDMA_PORTS, probe_ports, read_ports
from hpctrain.preflight.fleet import Fleet, differing, not_asked
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, WARN, Verdict

CODE = "efa"
LIBFABRIC, PLUGIN = (1, 18), (1, 7)
_FI_INFO = ("/opt/amazon/efa/bin/fi_info", "fi_info")
# Where AWS's installer, its images and its containers put the plugin.
_PLUGINS = (
    "/opt/amazon/ofi-nccl/lib*/libnccl-net*.so", "/opt/amazon/ofi-nccl/lib/*/libnccl-net*.so",
    "/opt/aws-ofi-nccl/lib*/libnccl-net*.so", "/usr/local/lib/libnccl-net*.so",
)  # fmt: skip
_INSTALL = (
    "curl -O https://efa-installer.amazonaws.com/aws-efa-installer-latest.tar.gz, then "
    "./efa_installer.sh -y on each host, or the same in the image"
)


def parse_libfabric_version(text: str) -> tuple[int, ...] | None:
    """Return the version that ``fi_info --version`` prints; None where it prints none.

    >>> parse_libfabric_version("fi_info: 1.21.0a1\\nlibfabric: 1.21.0a1\\nlibfabric api: 1.20\\n")
    (1, 21, 0)
    """
    match = re.search(r"^libfabric: (\d+)\.(\d+)\.(\d+)", text, re.MULTILINE)
    return tuple(int(part) for part in match.groups()) if match else None


def find_plugin_version(text: bytes) -> tuple[int, ...] | None:
    """Return the version in the words that the plugin prints when NCCL loads it.

    >>> find_plugin_version(b"NET/OFI Initializing aws-ofi-nccl 1.16.2")
    (1, 16, 2)
    """
    match = re.search(rb"aws-ofi-nccl (\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in match.groups()) if match else None


def _look(task: NodeTask) -> dict[str, Any] | None:
    if not any(port.driver == "efa" for port in probe_ports()):
        return None
    answer: dict[str, Any] = {"libfabric": None, "plugin": "", "plugin_version": None}
    for program in _FI_INFO:
        done = LocalExecutor().run(Command((program, "--version")), timeout_s=10.0)
        if done.ok and (version := parse_libfabric_version(done.stdout)):
            answer["libfabric"] = list(version)
            break
    for path in _plugin_paths(os.environ.get("LD_LIBRARY_PATH", "")):
        answer["plugin"] = str(path)
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            version = find_plugin_version(text)
        answer["plugin_version"] = list(version) if version else None
        break
    return answer


def _plugin_paths(library_path: str) -> Iterator[Path]:
    for folder in filter(None, library_path.split(os.pathsep)):
        yield from sorted(Path(folder).glob("libnccl-net*.so"))
    for pattern in _PLUGINS:
        yield from sorted(Path("/").glob(pattern.lstrip("/")))


EFA_PARTS = Probe("efa-parts", _look, 30.0)


def judge_efa(fleet: Fleet) -> Iterator[Verdict]:
    """Look for old and missing parts, and for versions that differ; silent without EFA."""
    efa = {
        host for host, value in fleet.answers_of(RDMA_PORTS.name).items()
        if any(port.driver == "efa" for port in read_ports(value))
    }  # fmt: skip
    versions = {}
    for host, answer in fleet.answers.get(EFA_PARTS.name, {}).items():
        if answer.error and (host in efa or not efa):
            yield not_asked(CODE, host, answer.error)
        elif answer.value is not None:
            verdict = _judge_host(host, answer.value)
            versions[host] = verdict.found
            yield verdict
    if len(set(versions.values())) > 1:
        usual, *others = differing(versions).items()
        hosts = tuple(host for _, names in others for host in names)
        found = f"not as on {usual[1][0]} ({usual[0]})"
        yield Verdict(CODE, WARN, found, _INSTALL, "the same versions everywhere", hosts)


def _judge_host(host: str, value: dict[str, Any]) -> Verdict:
    libfabric, plugin = value["libfabric"], value["plugin_version"]
    found = f"libfabric {_dotted(libfabric)}, aws-ofi-nccl {_dotted(plugin)}"
    if libfabric is None:
        return Verdict(CODE, FAIL, "EFA adapters, and no libfabric", _INSTALL, "", (host,))
    if not value["plugin"]:
        found = f"{found}: NCCL would use TCP, 4 to 8 times slower, and not say so"
        return Verdict(CODE, WARN, found, _INSTALL, "aws-ofi-nccl's libnccl-net.so", (host,))
    old = tuple(libfabric) < LIBFABRIC or (plugin is not None and tuple(plugin) < PLUGIN)
    if old or plugin is None:
        expected = f"libfabric {_dotted(LIBFABRIC)}, aws-ofi-nccl {_dotted(PLUGIN)} or newer"
        return Verdict(CODE, WARN, f"{found} ({value['plugin']})", _INSTALL, expected, (host,))
    return Verdict(CODE, PASS, found, hosts=(host,))


def _dotted(version: Any) -> str:
    return ".".join(str(part) for part in version) if version else "unknown"


EFA = Check(CODE, judge_efa, (RDMA_PORTS, EFA_PARTS))
