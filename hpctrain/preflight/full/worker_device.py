"""``python -m hpctrain.preflight.full.worker_device``: load one device, and say what it did.

A process of its own for each device: a driver that hangs takes nothing else with it. Prints one
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hpctrain.executor import die_with_parent

GPU_SIZE, CPU_SIZE = 8192, 1024  # of the square matrices
CHECKED_ROWS = 64
GPU_COPY_BYTES, CPU_COPY_BYTES = 1 << 30, 128 << 20
MOST_OF_MEMORY = 8  # a copy's buffer takes this part of what is free at most
GPU_TIMED_S, CPU_TIMED_S = 2.0, 0.5
LEAST_REPEATS, MOST_REPEATS = 3, 200
# The largest error, as a part of the largest element. Inputs are rounded before the reference is
# taken, so what is left is the rounding of the result (half a unit in the last place: 2**-9 for
# bf16, 2**-12 for fp16), for tf32 that of the inputs (2**-11), and of the sum's order; four times
# that is allowed. fp16 as bf16: cuBLAS may add up parts of its sums in fp16.
TOLERANCES = {"bf16": 2.0**-7, "fp16": 2.0**-7, "tf32": 2.0**-9, "fp32": 2.0**-15}
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def measure_device(device: torch.device, precision: str) -> dict[str, Any]:
    """Multiply and copy on a device; return rates, errors and what it is called.

    Args:
        precision: "bf16", "fp16", "tf32" or "fp32"; a GPU that lacks it takes the next it has.
    """
    on_gpu = device.type == "cuda"
    precision = _usable(precision) if on_gpu else "fp32"
    torch.manual_seed(0)
    found = {"device": str(device), "precision": precision, "threads": torch.get_num_threads()}
    found["name"] = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    size = GPU_SIZE if on_gpu else CPU_SIZE
    found |= measure_product(device, precision, size, GPU_TIMED_S if on_gpu else CPU_TIMED_S)
    return found | measure_copy(device)


def measure_product(
    device: torch.device, precision: str, size: int, timed_s: float
) -> dict[str, Any]:
    """Multiply two (size, size) matrices again and again.

    The first product is compared with one in double precision on the CPU, on CHECKED_ROWS rows;
    every other one with the first, bit for bit: the same kernel on the same numbers.
    """
    dtype = _DTYPES.get(precision, torch.float32)
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    rows = torch.arange(0, size, max(1, size // CHECKED_ROWS))[:CHECKED_ROWS]
    expected = left[rows].double() @ right.double()
    left, right = left.to(device), right.to(device)
    first = left @ right
    error = (first[rows.to(device)].cpu().double() - expected).abs().max() / expected.abs().max()
    again, differing = torch.empty_like(first), 0

    def multiply() -> None:
        torch.matmul(left, right, out=again)

    times_s = time_repeats(multiply, device, timed_s)
    for _ in range(LEAST_REPEATS):
        multiply()
        differing += int((again != first).sum())
    return {
        "size": size, "error_part": error.item(), "tolerance": TOLERANCES[precision],
        "differing": differing, "flops_per_s": 2 * size**3 / statistics.median(times_s),
        "repeats": len(times_s),
    }  # fmt: skip


def measure_copy(device: torch.device) -> dict[str, Any]:
    """Copy memory on a device and compare it; bytes read and written count."""
    on_gpu = device.type == "cuda"
    wanted = GPU_COPY_BYTES if on_gpu else CPU_COPY_BYTES
    if on_gpu:
        wanted = min(wanted, torch.cuda.mem_get_info(device)[0] // MOST_OF_MEMORY)
    source = torch.arange(wanted // 4, dtype=torch.int32, device=device)
    target = torch.zeros_like(source)

    def copy() -> None:
        target.copy_(source)

    times_s = time_repeats(copy, device, (GPU_TIMED_S if on_gpu else CPU_TIMED_S) / 2)
    return {
        "copy_bytes": source.nbytes, "copy_differing": int((source != target).sum()),
        "copy_bytes_per_s": 2 * source.nbytes / statistics.median(times_s),
    }  # fmt: skip


def time_repeats(work: Callable[[], object], device: torch.device, timed_s: float) -> list[float]:
    """Return how long each repeat took (s), the device waited for, for about `timed_s` in all."""
    work()
    times_s: list[float] = []
    _wait_for(device)
    end_s = time.perf_counter() + timed_s
    while len(times_s) < LEAST_REPEATS or (
        time.perf_counter() < end_s and len(times_s) < MOST_REPEATS
    ):
        began_s = time.perf_counter()
        work()
        _wait_for(device)
        times_s.append(time.perf_counter() - began_s)
    return times_s


def _wait_for(device: torch.device) -> Tensor | None:
    return torch.cuda.synchronize(device) if device.type == "cuda" else None


def _usable(precision: str) -> str:
    """Return what the GPU has its fast units for: bf16 and tf32 came with compute capability 8."""
    if precision in ("bf16", "tf32") and torch.cuda.get_device_capability()[0] < 8:
        return "fp16" if precision == "bf16" else "fp32"
    return precision


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="cpu, or cuda:N")
    parser.add_argument("--precision", required=True, choices=sorted(TOLERANCES))
    asked = parser.parse_args(argv)
    die_with_parent()
    device = torch.device(asked.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    print(json.dumps(measure_device(device, asked.precision)), flush=True)


if __name__ == "__main__":
    main()
