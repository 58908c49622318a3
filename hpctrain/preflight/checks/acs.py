"""Does PCI access control (ACS) send traffic between GPUs through the CPU?

NVIDIA, NCCL user guide, "Troubleshooting", PCI Access Control Services: a bridge with SrcValid+
redirects point-to-point traffic; on a bare machine it is to be off, in a virtual one it must stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpctrain.executor import Command, LocalExecutor
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.checks.gpu_states import GPUS, host_gpus
from hpctrain.preflight.fleet import Fleet, not_asked
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import PASS, SKIP, WARN, Verdict

CODE = "acs"
LSPCI_TIMEOUT_S = 20.0
_DEVICE = re.compile(r"(?P<address>(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) (?P<what>.*)")
# The redirection itself, and what the guide looks for: some boards have one without the other.
_ON = re.compile(r"\s*ACSCtl:.*\b(?:SrcValid|ReqRedir)\+")
_DENIED = "Capabilities: <access denied>"


def parse_acs(text: str) -> tuple[list[str], bool]:
    """Return (addresses of PCI bridges with ACS on, whether lspci was let at capabilities).

    Args:
        text: the output of ``lspci -vvv``; without root it hides what ACS is set to.
    """
    bridges, address, is_bridge = [], "", False
    for line in text.splitlines():
        if match := _DEVICE.match(line):
            address, is_bridge = match["address"], "PCI bridge" in match["what"]
        elif is_bridge and _ON.match(line):
            bridges.append(address)
    return bridges, _DENIED not in text


def _look(task: NodeTask) -> dict[str, Any]:
    done = LocalExecutor().run(Command(("lspci", "-vvv")), timeout_s=LSPCI_TIMEOUT_S)
    if done.returncode == 127:
        return {"bridges": None, "why": "lspci is not installed", "virtual": _is_virtual()}
    bridges, allowed = parse_acs(done.stdout)
    why = "" if allowed else "lspci shows it to root alone"
    if not done.stdout.strip():
        why = f"lspci says nothing: {done.last_words}"
    return {"bridges": None if why else bridges, "why": why, "virtual": _is_virtual()}


def _is_virtual() -> bool:
    """Return whether this is a virtual machine, by the flag that hypervisors set."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return re.search(r"^flags\s*:.*\bhypervisor\b", text, re.MULTILINE) is not None


BRIDGES = Probe("pci-bridges", _look, LSPCI_TIMEOUT_S + 5.0)


def judge_acs(fleet: Fleet) -> Iterator[Verdict]:
    """Warn where a bare machine with several GPUs has bridges with ACS on."""
    gpus = fleet.answers_of(GPUS.name)
    for host, answer in fleet.answers.get(BRIDGES.name, {}).items():
        several = host in gpus and len(host_gpus(gpus[host]).gpus) > 1
        if not several or fleet.tasks[host].config.get("train", {}).get("device") == "cpu":
            continue
        if answer.error:
            yield not_asked(CODE, host, answer.error)
            continue
        yield _judge_host(host, answer.value)


def _judge_host(host: str, value: dict[str, Any]) -> Verdict:
    if value["virtual"]:
        return Verdict(CODE, SKIP, "a virtual machine: ACS is the hypervisor's", hosts=(host,))
    if value["bridges"] is None:
        by_hand = "sudo lspci -vvv | grep ACSCtl"
        return Verdict(CODE, SKIP, value["why"], by_hand, "", (host,))
    if not value["bridges"]:
        return Verdict(CODE, PASS, "off on every PCI bridge", hosts=(host,))
    shown = ", ".join(value["bridges"][:4]) + (" …" if len(value["bridges"]) > 4 else "")
    found = (
        f"on at {len(value['bridges'])} PCI bridges ({shown}): traffic between GPUs without "
        "NVLink, and to network cards, goes through the CPU, or hangs"
    )
    fix = f"sudo setpci -s {value['bridges'][0]} ECAP_ACS+0x6.w=0000 for each; or off in the BIOS"
    return Verdict(CODE, WARN, found, fix, "SrcValid-", (host,))


ACS = Check(CODE, judge_acs, (BRIDGES, GPUS))
