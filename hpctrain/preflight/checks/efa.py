"""AWS: are libfabric and NCCL's plugin there, and new enough, where there are EFA adapters?

Versions: AWS, "EFA cheat sheet" of aws-ofi-nccl: from libfabric 1.18 and aws-ofi-nccl 1.7 on
nothing has to be set by hand. Without the plugin NCCL uses TCP and says nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from hpctrain.executor import Command, Executor, LocalExecutor
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.checks.rdma import RDMA_PORTS, probe_ports, read_ports
from hpctrain.preflight.fleet import Fleet, differing, not_asked
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import PASS, WARN, Verdict
from hpctrain.probe_fabric import find_ofi_plugin, probe_efa_packages

CODE = "efa"
LIBFABRIC, PLUGIN = (1, 18), (1, 7)
_FI_INFO = ("/opt/amazon/efa/bin/fi_info", "fi_info")
_INSTALL = (
    "curl -O https://efa-installer.amazonaws.com/aws-efa-installer-latest.tar.gz, then "
    "./efa_installer.sh -y on each host, or the same in the image"
)


def parse_libfabric_version(text: str) -> str | None:
    """Return the version that ``fi_info --version`` prints; None where it prints none.

    >>> parse_libfabric_version("fi_info: 1.21.0a1\\nlibfabric: 1.21.0a1\\nlibfabric api: 1.20\\n")
    '1.21.0a1'
    """
    match = re.search(r"^libfabric: (\d\S*)", text, re.MULTILINE)
    return match[1] if match else None


def parse_numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers, without what its maker has put behind them.

    >>> parse_numbers("1.22.0amzn5.0"), parse_numbers("1.7.3-aws")
    ((1, 22, 0), (1, 7, 3))
    """
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _look(task: NodeTask) -> dict[str, Any] | None:
    if not any(port.driver == "efa" for port in probe_ports()):
        return None
    plugin, version = find_ofi_plugin(os.environ.get("LD_LIBRARY_PATH", ""))
    libfabric = probe_efa_packages().get("libfabric") or _ask_fi_info(LocalExecutor())
    return {"libfabric": libfabric, "plugin": plugin, "plugin_version": version}


def _ask_fi_info(executor: Executor) -> str | None:
    for program in _FI_INFO:
        done = executor.run(Command((program, "--version")), timeout_s=10.0)
        if done.ok and (version := parse_libfabric_version(done.stdout)):
            return version
    return None


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
    found = f"libfabric {libfabric or 'unknown'}, aws-ofi-nccl {plugin or 'unknown'}"
    if not value["plugin"]:
        found = f"{found}: NCCL would use TCP, 4 to 8 times slower, and not say so"
        return Verdict(CODE, WARN, found, _INSTALL, "aws-ofi-nccl's libnccl-net.so", (host,))
    # Containers often have the library alone, without a program that tells its version.
    known = libfabric is not None and plugin is not None
    if not known or parse_numbers(libfabric) < LIBFABRIC or parse_numbers(plugin) < PLUGIN:
        expected = f"libfabric {_dotted(LIBFABRIC)}, aws-ofi-nccl {_dotted(PLUGIN)} or newer"
        return Verdict(CODE, WARN, f"{found} ({value['plugin']})", _INSTALL, expected, (host,))
    return Verdict(CODE, PASS, found, hosts=(host,))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


EFA = Check(CODE, judge_efa, (RDMA_PORTS, EFA_PARTS))
