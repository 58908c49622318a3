"""What a GPU could compute at most: the denominator of the model FLOPs utilization (MFU).

Dense peaks of the tensor cores (fp32: of the ordinary cores), as the makers state them; figures
with sparsity are twice as high and no measure for dense models. Unknown is None, never a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TERA = 1e12


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuPeak:
    """A GPU's dense peaks, TFLOP/s (1e12 a second)."""

    name: str
    pattern: str
    """Regular expression that is found in the name that the driver gives."""
    fp32: float | None = None
    tf32: float | None = None
    fp16: float | None = None
    bf16: float | None = None
    source: str
    as_of: str
    """When the source was looked at: year and month."""
    disputed: str | None = None
    """Why the figures may be wrong; MFU then has the highest, so that it never flatters."""


_AS_OF = "2026-11"
# The makers' documents themselves were out of reach: each figure is as a table quotes it that
# names that document, and where two tables have it they agree, but for rounding.
_LIGHTNING = "as quoted by Lightning (fabric/utilities/throughput.py)"
_BOTH = "as quoted by Lightning (fabric/utilities/throughput.py) and Composer (speed_monitor.py)"
_HALVED = "half of the figures with sparsity"
GPU_PEAKS = (
    GpuPeak(
        name="V100 PCIe", pattern=r"\bV100-PCIE\b", fp32=14.0, fp16=112.0,
        source=f"NVIDIA V100 data sheet (1165301-r5), {_BOTH}", as_of=_AS_OF,
    ),
    GpuPeak(
        name="V100 SXM", pattern=r"\bV100-SXM[23]\b", fp32=15.7, fp16=125.0,
        source=f"NVIDIA V100 data sheet (1165301-r5), {_BOTH}", as_of=_AS_OF,
    ),
    GpuPeak(
        name="T4", pattern=r"\bT4\b", fp32=8.1, fp16=65.0,
        source=f"NVIDIA T4 data sheet (951643), {_BOTH}", as_of=_AS_OF,
    ),
    GpuPeak(
        name="A100", pattern=r"\bA100\b", fp32=19.5, tf32=156.0, fp16=312.0, bf16=312.0,
        source=f"NVIDIA A100 data sheet (1758950-r4), {_BOTH}", as_of=_AS_OF,
    ),
    GpuPeak(
        name="A10G", pattern=r"\bA10G\b", fp32=35.0, fp16=125.0, bf16=125.0,
        source=f"16-bit: NVIDIA A10 data sheet, for the A10G {_LIGHTNING}; fp32: NVIDIA and AWS "
        "A10G data sheet (February 2022), as quoted by Full Stack Deep Learning (cloud GPUs)",
        as_of=_AS_OF,
        disputed="16-bit peak of the A10G: 125 TFLOP/s as the A10's, or 70 as its own data sheet "
        "is quoted (and 69.5 measured); fp32: 35 as quoted from there, or 31.2 as the A10's",
    ),
    GpuPeak(
        name="L4", pattern=r"\bL4\b", fp32=30.3, tf32=60.0, fp16=121.0, bf16=121.0,
        source=f"NVIDIA Ada architecture white paper (v2.1), {_LIGHTNING}", as_of=_AS_OF,
    ),
    GpuPeak(
        name="H100 PCIe", pattern=r"\bH100 PCIe\b", fp32=51.0, tf32=378.0, fp16=756.0, bf16=756.0,
        source=f"NVIDIA H100 data sheet, {_HALVED}, {_BOTH}", as_of=_AS_OF,
    ),
    GpuPeak(
        name="H100 SXM", pattern=r"\bH100 (80GB HBM3|SXM)", fp32=67.0, tf32=494.5, fp16=989.0,
        bf16=989.0,
        source=f"NVIDIA H100 data sheet, {_HALVED}, {_BOTH}", as_of=_AS_OF,
    ),
    GpuPeak(
        name="H200", pattern=r"\bH200\b(?! NVL)", fp32=67.0, tf32=494.5, fp16=989.0, bf16=989.0,
        source=f"NVIDIA H200 data sheet, {_HALVED}, as quoted by Composer (speed_monitor.py)",
        as_of=_AS_OF,
    ),
    GpuPeak(
        name="B200", pattern=r"\bB200\b", fp32=80.0, tf32=1125.0, fp16=2250.0, bf16=2250.0,
        source=f"NVIDIA Blackwell data sheet, {_HALVED}; 16-bit as quoted by torchtitan "
        "(tools/utils.py), fp32 by G. K. Lockwood's notes on the B200; tf32: half of 16-bit",
        as_of=_AS_OF,
        disputed="tf32 peak of the B200: 1125 TFLOP/s, half of its 16-bit peak, or 1100 as the "
        "data sheet rounds it; fp32: 80, or 75 in later data sheets",
    ),
)  # fmt: skip
_COMPUTED_AS = {"apex-O1": "fp16", "apex-O2": "fp16"}


def find_peak(device_name: str) -> GpuPeak | None:
    """Return the peaks of the GPU that the driver calls `device_name`; None where unknown.

    >>> find_peak("NVIDIA A100-SXM4-80GB").name, find_peak("NVIDIA H100 80GB HBM3").name
    ('A100', 'H100 SXM')
    >>> find_peak("NVIDIA A100-SXM4-40GB MIG 1g.5gb") is None  # a slice has a part of the peak
    True
    """
    if "MIG" in device_name:
        return None
    return next((peak for peak in GPU_PEAKS if re.search(peak.pattern, device_name)), None)


def peak_flops(device_name: str, precision: str) -> float | None:
    """Return the dense peak in FLOP/s for a precision of the configuration; None where unknown.

    >>> peak_flops("NVIDIA H200", "bf16")
    989000000000000.0
    >>> peak_flops("Tesla T4", "bf16") is None  # it has no such unit
    True
    """
    peak = find_peak(device_name)
    tflops = getattr(peak, _COMPUTED_AS.get(precision, precision), None)
    return None if tflops is None else tflops * TERA
