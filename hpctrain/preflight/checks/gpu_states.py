"""The GPUs of a host as nvidia-smi has them: the probe that the checks of GPUs share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from hpctrain.errors import ProbeError
from hpctrain.executor import Command, LocalExecutor
from hpctrain.preflight.check import Probe
from hpctrain.preflight.fleet import Fleet, not_asked
from hpctrain.preflight.nvidia_smi import GpuState, parse_nvidia_smi, resolve_visible
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import Verdict

# Without the persistence daemon a driver wakes each GPU first: 8 of them take some seconds.
NVIDIA_SMI_TIMEOUT_S = 40.0
NOT_FOUND, NO_DEVICES = 127, "No devices were found"  # the latter with exit code 6
DRIVER = Path("/proc/driver/nvidia/version")
_PCI = Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAY_OR_3D = "0x10de", ("0x0300", "0x0302")


class HostGpus(NamedTuple):
    """Args:
    on_bus: NVIDIA GPUs that the PCI bus has.
    has_driver: whether the driver is loaded and nvidia-smi there; else nothing more is known.
    visible: ``CUDA_VISIBLE_DEVICES`` as ranks get it; None where it is not set.
    """

    on_bus: int
    has_driver: bool
    visible: str | None
    gpus: tuple[GpuState, ...]

    @property
    def devices(self) -> list[tuple[GpuState, str]]:
        """The (GPU, UUID) of each device that ranks see, a slice being one."""
        return resolve_visible(self.visible, self.gpus)

    @property
    def used(self) -> list[GpuState]:
        """The GPUs that ranks see, each once."""
        return list(dict.fromkeys(gpu for gpu, _ in self.devices))

    def number(self, gpu: GpuState) -> int:
        """Return a GPU's number as nvidia-smi counts."""
        return self.gpus.index(gpu)


def _look(task: NodeTask) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "on_bus": count_on_bus(_PCI), "has_driver": DRIVER.exists(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "gpus": [],
    }  # fmt: skip
    if answer["has_driver"]:
        executor = LocalExecutor()
        done = executor.run(Command(("nvidia-smi", "-q")), timeout_s=NVIDIA_SMI_TIMEOUT_S)
        if done.returncode == NOT_FOUND:  # a container that was given no GPU
            return {**answer, "has_driver": False}
        if not done.ok and NO_DEVICES not in done.stdout:
            raise ProbeError(f"nvidia-smi -q: exit code {done.returncode}: {done.last_words}")
        listed = executor.run(Command(("nvidia-smi", "-L")), timeout_s=NVIDIA_SMI_TIMEOUT_S)
        answer["gpus"] = [asdict(gpu) for gpu in parse_nvidia_smi(done.stdout, listed.stdout)]
    return answer


GPUS = Probe("gpu-states", _look, 2 * NVIDIA_SMI_TIMEOUT_S)


def count_on_bus(devices: Path) -> int:
    """Return how many NVIDIA GPUs (display or 3D controllers) a PCI bus has.

    Args:
        devices: /sys/bus/pci/devices.
    """
    return sum(
        _read(device / "vendor") == _NVIDIA and _read(device / "class").startswith(_DISPLAY_OR_3D)
        for device in devices.glob("*")
    )


def host_gpus(value: Mapping[str, Any]) -> HostGpus:
    """Return what the probe answered."""
    import msgspec

    gpus = msgspec.convert(value["gpus"], tuple[GpuState, ...])
    return HostGpus(value["on_bus"], value["has_driver"], value["visible"], gpus)


def wants_gpus(task: NodeTask) -> bool | None:
    """Return whether the configuration asks for GPUs; None where it takes what there is."""
    device = task.config.get("train", {}).get("device", "auto")
    return {"cuda": True, "cpu": False}.get(device)


def of_gpus(
    code: str, judge: Callable[[NodeTask, HostGpus, Fleet], Iterable[Verdict]]
) -> Callable[[Fleet], Iterator[Verdict]]:
    """Return a check of the GPUs of hosts that have some, and whose ranks may use them.

    Args:
        judge: → verdicts, whose `hosts` are filled in.
    """

    def check(fleet: Fleet) -> Iterator[Verdict]:
        for host, answer in fleet.answers.get(GPUS.name, {}).items():
            task = fleet.tasks[host]
            if wants_gpus(task) is False:
                continue
            if answer.error:
                yield not_asked(code, host, answer.error)
                continue
            for verdict in judge(task, host_gpus(answer.value), fleet):
                yield replace(verdict, hosts=(host,))

    return check


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
