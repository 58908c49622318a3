"""What a rank of an all-reduce measurement runs on, and what its memory holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpctrain.bench.environment import probe_environment

# The message itself, what the library copies of it, and room for everybody else.
COPIES = 3


def fits(size: int, local_size: int, device: Any) -> str:
    """Return why a message of `size` bytes a rank does not fit into memory here; "" if it does.

    Args:
        local_size: ranks that share this host's memory.
        device: torch's; on a GPU its own memory counts too.
    """
    need, have = COPIES * size * local_size, available_bytes()
    if have is not None and need > have:
        return f"{local_size} ranks need {need / 1e6:,.0f} MB, got {have / 1e6:,.0f} MB free"
    if device is not None and device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        if COPIES * size > free:
            return (
                f"it needs {COPIES * size / 1e6:,.0f} MB of the GPU, got {free / 1e6:,.0f} MB free"
            )
    return ""


def available_bytes() -> int | None:
    """Return the memory that this host can still give; None where it does not say.

    Source: proc(5), MemAvailable; a container's limit is the kernel's cgroup v2 memory.max.
    """
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = [int(line.split()[1]) << 10 for line in text.splitlines() if "MemAvailable" in line]
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        found.append(limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no container, or no limit
    return min(found, default=None)


def describe_placement(hosts: Sequence[str]) -> str:
    """Return where ranks are, in words.

    >>> describe_placement(["a", "a", "b", "b"]), describe_placement(["a"])
    ('2 nodes with 2 ranks each', '1 node with 1 rank')
    >>> describe_placement(["a", "a", "b"])
    '2 nodes with 2 + 1 ranks'
    """
    counts = list(Counter(hosts).values())
    nodes = f"{len(counts)} node{'s' if len(counts) > 1 else ''}"
    if len(set(counts)) > 1:
        return f"{nodes} with {' + '.join(map(str, counts))} ranks"
    ranks = f"{counts[0]} rank{'s' if counts[0] > 1 else ''}"
    return f"{nodes} with {ranks}" + (" each" if len(counts) > 1 else "")


def describe_environment(device: Any) -> dict[str, str]:
    """Return what rank 0 runs on."""
    found = probe_environment(("mpi4py", "torch", "horovod", "numpy"), mpi=False)
    if device is not None and device.type == "cuda":
        import torch

        found["gpu"] = torch.cuda.get_device_name(device)
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    try:
        from hpctrain.train.comm_horovod import mpi_library

        found["mpi"] = mpi_library() or "unknown"
    except ImportError:
        pass  # no torch
    return found
