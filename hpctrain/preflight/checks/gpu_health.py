"""Do the GPUs report errors of their memory, a reset that is due, or lowered clocks?

What counts: NVIDIA, "GPU Memory Error Management" (error recovery and response flags; RMA policy
thresholds) and the NVML API's clock event reasons, by which a hardware slowdown at least halves
the clocks.
"""

from __future__ import annotations

from collections.abc import Iterator

from hpctrain.preflight.check import Check
from hpctrain.preflight.checks.gpu_states import GPUS, HostGpus, of_gpus
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.nvidia_smi import GpuState
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, WARN, Verdict

CODE = "gpu-health"
# New work may be started beside these: what waits is done at the next reset.
_MAY_WAIT = (
    "Remapped Rows, Pending", "Pending Page Blacklist", "Drain and Reset Recommended",
    "Channel Repair Pending", "TPC Repair Pending",
)  # fmt: skip


def _judge(task: NodeTask, known: HostGpus, fleet: Fleet) -> Iterator[Verdict]:
    if not known.used:
        return
    healthy = True
    for gpu in known.used:
        for verdict in _judge_gpu(known.number(gpu), gpu):
            healthy = False
            yield verdict
    if healthy:
        yield Verdict(CODE, PASS, f"{len(known.used)} GPUs: no uncorrected errors, no slowdown")


def _judge_gpu(number: int, gpu: GpuState) -> Iterator[Verdict]:
    who = f"GPU {number} ({gpu.bus_id})"
    reset = f"nvidia-smi -i {number} -r when nothing runs on it, else take the host out"
    if gpu.uncorrected is None:
        found = f"{who}: ECC is on, and nvidia-smi tells no count of uncorrected memory errors"
        yield Verdict(CODE, WARN, found, f"nvidia-smi -q -i {number} -d ECC")
    elif gpu.uncorrected:
        found = f"{who}: {gpu.uncorrected} uncorrected memory errors since the driver was loaded"
        yield Verdict(CODE, FAIL, found, reset, "0")
    for trouble in gpu.troubles:
        status = WARN if trouble.startswith(_MAY_WAIT) else FAIL
        yield Verdict(CODE, status, f"{who}: {trouble}", reset)
    if gpu.slowed:
        by_hardware = any(reason.startswith("HW") for reason in gpu.slowed)
        found = f"{who}: clocks lowered: {', '.join(gpu.slowed)}; every rank waits for it"
        fix = f"nvidia-smi -q -i {number} -d PERFORMANCE,TEMPERATURE,POWER; check cooling and power"
        yield Verdict(CODE, FAIL if by_hardware else WARN, found, fix)


GPU_HEALTH = Check(CODE, of_gpus(CODE, _judge), (GPUS,))
