"""Has each rank's GPU the memory that the estimate asks for, free?"""

from __future__ import annotations

from collections.abc import Iterator

from hpctrain.estimate.quantities import render_bytes
from hpctrain.preflight.check import Check
from hpctrain.preflight.checks.gpu_states import GPUS, HostGpus, of_gpus
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.need import RunNeed
from hpctrain.preflight.nvidia_smi import GpuState
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, WARN, Verdict

CODE = "gpu-memory"
NEED = "need"  # under which a request's facts have the RunNeed


def _judge(task: NodeTask, known: HostGpus, fleet: Fleet) -> Iterator[Verdict]:
    need = fleet.facts.get(NEED)
    if not isinstance(need, RunNeed) or not known.devices:
        return
    free = [
        (known.number(gpu), size)
        for gpu, uuid in known.devices[: task.ranks]
        if (size := free_bytes(gpu, uuid)) is not None
    ]
    if not free:
        yield Verdict(CODE, WARN, "nvidia-smi does not say what is free", "nvidia-smi")
        return
    number, least = min(free, key=lambda each: each[1])
    found = f"GPU {number}: {render_bytes(least)} free, the least of {len(free)}"
    expected = f"{render_bytes(need.needed_bytes)}, by the estimate"
    less = (
        "a smaller batch: --set train.grad_accum_steps=2, or --set "
        "train.activation_checkpointing=true; what holds memory: nvidia-smi"
    )
    if need.needed_bytes > least:
        yield Verdict(CODE, FAIL, found, less, expected)
    elif need.at_most_bytes > least:
        expected += f", at most {render_bytes(need.at_most_bytes)}"
        yield Verdict(CODE, WARN, f"{found}: tight", less, expected)
    else:
        wanted = f"{render_bytes(need.needed_bytes)} needed"
        yield Verdict(CODE, PASS, f"{wanted}, and free on each of {len(free)} GPUs")


def free_bytes(gpu: GpuState, uuid: str) -> int | None:
    """Return what is free on a device: a GPU, or the slice of one that has this UUID."""
    if uuid in gpu.slices:
        number = gpu.slices.index(uuid)
        sizes = gpu.slices_free_bytes
        return sizes[number] if number < len(sizes) else None
    return gpu.free_bytes


GPU_MEMORY = Check(CODE, of_gpus(CODE, _judge), (GPUS,))
