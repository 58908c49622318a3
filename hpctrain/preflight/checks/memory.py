"""Has each host the main memory that its ranks need, free?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpctrain.estimate.quantities import render_bytes
from hpctrain.preflight.check import Check
from hpctrain.preflight.checks.gpu_memory import NEED
from hpctrain.preflight.checks.gpu_states import GPUS, wants_gpus
from hpctrain.preflight.checks.host_state import HOST
from hpctrain.preflight.fleet import Fleet, on_each_host
from hpctrain.preflight.need import RunNeed
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE = "memory"
TIGHT = 1.1  # the estimate's own error (hpctrain.estimate.memory.MEMORY_ERROR)
LEAST_BYTES = 5 * 10**8  # for a program that is not known: Python and torch alone


def judge_memory(fleet: Fleet) -> Iterator[Verdict]:
    """Compare free memory with the estimate; without one, with what Python and torch take."""
    need = fleet.facts.get(NEED)
    if isinstance(need, str):  # why there is none
        yield Verdict(CODE, WARN, f"the run's need is not known: {need}", "correct it, or go on")
    with_gpus = {h for h, value in fleet.answers_of(GPUS.name).items() if value["gpus"]}

    def judge(task: NodeTask, value: dict[str, Any]) -> Verdict:
        on_gpu = task.host in with_gpus and wants_gpus(task) is not False
        return _judge_host(task, value["available_bytes"], need, on_gpu=on_gpu)

    yield from on_each_host(CODE, HOST.name, judge)(fleet)


def _judge_host(task: NodeTask, free: int, need: object, *, on_gpu: bool) -> Verdict:
    if not task.ranks:
        return Verdict(CODE, SKIP, "no ranks there")
    fix = "ps -eo rss,user,args --sort=-rss | head; fewer slots, or a smaller batch"
    found = f"{render_bytes(free)} free for {task.ranks} ranks"
    if not isinstance(need, RunNeed):
        least = task.ranks * LEAST_BYTES
        expected = f"{render_bytes(least)} for Python and torch alone"
        if least > free:
            return Verdict(CODE, WARN, found, fix, expected)
        return Verdict(CODE, PASS, f"{expected}, and free; no estimate for this run")
    needed = need.host_bytes(task.ranks, on_gpu=on_gpu)
    expected = f"{render_bytes(needed)}, by the estimate"
    if needed > free:
        return Verdict(CODE, FAIL, found, fix, expected)
    if needed * TIGHT > free:
        return Verdict(CODE, WARN, f"{found}: tight", fix, expected)
    return Verdict(CODE, PASS, f"{render_bytes(needed)} needed for {task.ranks} ranks, and free")


MEMORY = Check(CODE, judge_memory, (HOST, GPUS))
