"""Which GPUs an estimate knows, and what they have."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpctrain.errors import ConfigError, did_you_mean
from hpctrain.gpu_peaks import GpuPeak, find_peak, peak_flops
from hpctrain.scaling_model.instances import as_line_rate
from hpctrain.scaling_model.links import Link, parse_link

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

TABLE = Path(__file__).with_name("gpus.toml")


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One kind of GPU.

    Args:
        device: as the driver calls it.
        machine: as the table of cloud machines calls it.
        between: one direction between two of a node, as NCCL gets it.
        achievable_flops: best measured rate of 16-bit matrix products; None where unknown.
        like: the GPU whose published figures are a lower bound for this one.
    """

    name: str
    device: str
    machine: str
    memory_bytes: float
    between: Link
    to_host_bytes_per_s: float
    achievable_flops: float | None = None
    like: str | None = None

    @property
    def peak(self) -> GpuPeak:
        found = find_peak(self.device)
        assert found is not None  # a test holds the table to that
        return found

    def peak_flops(self, precision: str) -> float | None:
        """Return the dense peak in FLOP/s; None where the GPU has no such unit."""
        return peak_flops(self.device, precision)

    @property
    def best_precision(self) -> str:
        """The 16-bit format that the GPU has: bf16 from Ampere on."""
        return "bf16" if self.peak.bf16 else "fp16"


@functools.cache
def read_gpus() -> Mapping[str, Gpu]:
    """Return all GPUs by name."""
    return {name: _gpu(name, row) for name, row in _rows().items()}


def gpu_names() -> list[str]:
    """Return every name and alias."""
    return sorted(
        {*_rows(), *(alias for row in _rows().values() for alias in row.get("aliases", ()))}
    )


def find_gpu(name: str, where: str = "--gpu") -> Gpu:
    """Return the GPU of that name or alias; case does not count.

    >>> find_gpu("A100").name
    'a100-80gb'

    Raises:
        ConfigError: there is none.
    """
    wanted = name.strip().lower()
    for known, row in _rows().items():
        if wanted == known or wanted in row.get("aliases", ()):
            return read_gpus()[known]
    raise ConfigError(
        f"{where}: unknown GPU, got '{name}'; expected one of {', '.join(gpu_names())}."
        f"{did_you_mean(wanted, gpu_names())}"
    )


def find_gpu_of_machine(machine_gpu: str) -> Gpu | None:
    """Return the GPU that the table of cloud machines calls so."""
    return next((gpu for gpu in read_gpus().values() if gpu.machine == machine_gpu), None)


@functools.cache
def _rows() -> dict[str, dict[str, Any]]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def _gpu(name: str, row: Mapping[str, Any]) -> Gpu:
    return Gpu(
        name=name,
        device=row["device"],
        machine=row["machine"],
        memory_bytes=row["memory_mib"] * 2.0**20,
        between=as_line_rate(
            replace(parse_link(row["between"]), source=f"line rate {row['between']}, gpus.toml")
        ),
        to_host_bytes_per_s=row["to_host_gb_per_s"] * 1e9,
        achievable_flops=row["achievable_tflops"] * 1e12 if "achievable_tflops" in row else None,
        like=row.get("like"),
    )
