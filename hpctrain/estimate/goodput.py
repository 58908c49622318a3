"""How often to save, and what failures leave of the time."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Llama 3 405B: 419 unexpected interruptions in 54 days on 16,384 H100 (Grattafiori et al. 2024,
# arXiv:2407.21783, section 3.3.4).
FAILURE_GPU_HOURS = 16384 * 54 * 24 / 419
# Noticing, starting ranks and libraries, the first step (assumption; reading comes on top).
RESTART_S = 180.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Goodput:
    """Args:
    failure_s: mean time between failures of the whole job.
    stall_s: of a step that saves: the copy to main memory.
    write_s: of a checkpoint, in the background.
    interval_s: from save to save.
    share: of the time that is progress, 0 to 1.
    """

    failure_s: float
    stall_s: float
    write_s: float
    restart_s: float
    interval_s: float
    bound_by_write: bool
    share: float


def plan_checkpoints(
    checkpoint_bytes: float, gpus: int, *, to_host_bytes_per_s: float, storage_bytes_per_s: float
) -> Goodput:
    """Return the best interval and the goodput with it.

    Every rank copies its equal share to main memory, which the step waits for, and writes it
    beside the next steps to storage that all share. The interval is √(2·C·M) (Young 1974,
    doi:10.1145/361147.361115; Daly 2006, doi:10.1016/j.future.2004.11.016, to first order), where
    the cost C is that stall alone, and never shorter than the write. A failure costs the restart,
    half an interval, and the write that was not complete.

    >>> plan = plan_checkpoints(12 * 1.3e9, 8, to_host_bytes_per_s=24e9, storage_bytes_per_s=1e9)
    >>> round(plan.failure_s / 3600), round(plan.interval_s), round(plan.share, 4)
    (6335, 1925, 0.9999)
    """
    failure_s = FAILURE_GPU_HOURS * 3600 / gpus
    stall_s = checkpoint_bytes / gpus / to_host_bytes_per_s
    write_s = checkpoint_bytes / storage_bytes_per_s
    young_s = math.sqrt(2 * stall_s * failure_s)
    interval_s = max(young_s, write_s)
    restart_s = RESTART_S + write_s  # it is read as fast as it is written
    lost_s = restart_s + interval_s / 2 + write_s
    share = max(0.0, 1 - lost_s / failure_s) / (1 + stall_s / interval_s)
    return Goodput(
        failure_s=failure_s, stall_s=stall_s, write_s=write_s, restart_s=restart_s,
        interval_s=interval_s, bound_by_write=young_s < write_s, share=share,
    )  # fmt: skip
