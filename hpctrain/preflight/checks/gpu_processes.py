"""Does somebody else compute on the GPUs?"""

from __future__ import annotations

from collections.abc import Iterator

from hpctrain.estimate.quantities import render_bytes
from hpctrain.preflight.check import Check
from hpctrain.preflight.checks.gpu_states import GPUS, HostGpus, of_gpus
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, WARN, Verdict

CODE = "gpu-processes"
# What an idle driver holds stays below this; a context alone takes about as much.
UNSEEN_BYTES = 2**30


def _judge(task: NodeTask, known: HostGpus, fleet: Fleet) -> Iterator[Verdict]:
    if not known.used:
        return
    alone = True
    for gpu in known.used:
        number = known.number(gpu)
        computing = [each for each in gpu.processes if "C" in each.kind]
        for process in computing:
            alone = False
            size = "" if process.used_bytes is None else f", {render_bytes(process.used_bytes)}"
            found = f"GPU {number}: {process.name} (pid {process.pid}{size}) computes there"
            exclusive = gpu.compute_mode == "Exclusive_Process"
            if exclusive:
                found += f"; compute mode {gpu.compute_mode} lets no second one in"
            fix = f"ps -o user,lstart,args -p {process.pid}; end it, or take the host out"
            yield Verdict(CODE, FAIL if exclusive else WARN, found, fix)
        if not computing and not gpu.mig and (gpu.used_bytes or 0) > UNSEEN_BYTES:
            alone = False
            found = (
                f"GPU {number}: {render_bytes(gpu.used_bytes or 0)} in use by processes that "
                "cannot be seen from here (in a container, or left by one that was killed)"
            )
            yield Verdict(CODE, WARN, found, "nvidia-smi on the host itself; else reset the GPU")
        if gpu.compute_mode == "Prohibited":
            alone = False
            found = f"GPU {number}: compute mode Prohibited lets no rank in"
            yield Verdict(CODE, FAIL, found, f"nvidia-smi -i {number} -c DEFAULT")
    if alone:
        yield Verdict(CODE, PASS, f"nobody computes on {len(known.used)} GPUs")


GPU_PROCESSES = Check(CODE, of_gpus(CODE, _judge), (GPUS,))
