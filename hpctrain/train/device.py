"""Which device and how many threads a rank computes with."""

from __future__ import annotations

import os

import torch

from hpctrain.cores import count_cores
from hpctrain.errors import PlanError


def choose_device(wanted: str, local_rank: int, local_size: int) -> torch.device:
    """Return the rank's device, made current.

    Args:
        wanted: `auto` (the rank's GPU where there is one), `cpu` or `cuda`.

    Raises:
        PlanError: there are fewer GPUs than ranks on this host.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        _limit_threads(local_size)
        return torch.device("cpu")
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        masked = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = "" if masked is None else f" (CUDA_VISIBLE_DEVICES={masked})"
        raise PlanError(
            f"train.device: rank {local_rank} of this host has no GPU, got {gpus} visible{seen} "
            f"for {local_size} ranks; expected one each. Start fewer ranks a host, or set "
            "train.device=cpu."
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _limit_threads(local_size: int) -> None:
    """Share the cores out among the host's ranks, unless the user or the launcher has."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, count_cores() // local_size))
