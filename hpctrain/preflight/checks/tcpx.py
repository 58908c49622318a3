"""Google Cloud: is the machine's own NCCL plugin there (TCPX, TCPXO, gIB), where there are A3, A4?

Which machine has which, and where: Google Cloud, "Maximize GPU network bandwidth in Autopilot mode
clusters" and the cluster toolkit's examples for a3-highgpu, a3-megagpu and a3-ultragpu.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.checks.gpu_states import GPUS, host_gpus
from hpctrain.preflight.fleet import Fleet, not_asked
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import PASS, WARN, Verdict

CODE = "tcpx"
_VENDOR = Path("/sys/class/dmi/id/sys_vendor")
# Plugin → a file of it. NCCL finds the folder by LD_LIBRARY_PATH.
PARTS = {
    "GPUDirect-TCPX": "/var/lib/tcpx/lib64",
    "GPUDirect-TCPXO (FasTrak)": "/var/lib/tcpxo/lib64",
    "gIB": "/usr/local/gib",
}
# By what the GPU is called; machines with fewer than 8 of them use plain gVNIC.
_MACHINES = {
    "H100": ("GPUDirect-TCPX", "GPUDirect-TCPXO (FasTrak)"),
    "H200": ("gIB",),
    "B200": ("gIB",),
}
_WHOLE_MACHINE = 8


def _look(task: NodeTask) -> list[str] | None:
    try:
        if not _VENDOR.read_text().startswith("Google"):
            return None
    except OSError:
        return None
    return [name for name, folder in PARTS.items() if any(Path(folder).glob("*"))]


TCPX_PARTS = Probe("tcpx-parts", _look, 10.0)


def judge_tcpx(fleet: Fleet) -> Iterator[Verdict]:
    """Look for the plugin that a host's GPUs ask for; silent elsewhere than on Google Cloud."""
    gpus = fleet.answers_of(GPUS.name)
    for host, answer in fleet.answers.get(TCPX_PARTS.name, {}).items():
        if answer.error:
            yield not_asked(CODE, host, answer.error)
            continue
        if answer.value is None or host not in gpus:
            continue
        wanted = wanted_plugins([gpu.name for gpu in host_gpus(gpus[host]).gpus])
        there: list[Any] = [name for name in answer.value if name in wanted]
        if there:
            yield Verdict(CODE, PASS, f"{there[0]} is there", hosts=(host,))
        elif wanted:
            found = f"no {' or '.join(wanted)}: NCCL would use TCP, and not say so"
            folders = " or ".join(PARTS[name] for name in wanted)
            fix = "install it as Google's guide for the machine type says, or use its image"
            yield Verdict(CODE, WARN, found, fix, f"files in {folders}", (host,))


def wanted_plugins(names: list[str]) -> tuple[str, ...]:
    """Return the plugins that a Google machine with these GPUs may have; none where none is made.

    >>> wanted_plugins(["NVIDIA H200"] * 8), wanted_plugins(["NVIDIA L4"] * 8)
    (('gIB',), ())
    """
    if len(names) < _WHOLE_MACHINE:
        return ()
    return next((plugins for part, plugins in _MACHINES.items() if part in names[0]), ())


TCPX = Check(CODE, judge_tcpx, (TCPX_PARTS, GPUS), needs_hosts=True)
