"""Carry out the full level, one part after the other, and judge each as soon as it is done."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from hpctrain.bench.scaling.progress import BenchConsole
from hpctrain.errors import HpctrainError
from hpctrain.preflight.again import with_same_words
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.fleet import Answer, Fleet
from hpctrain.preflight.full import allreduce, pairs, rehearsal
from hpctrain.preflight.full.device import DEVICES_PROBE
from hpctrain.preflight.full.place import Place, opened_place
from hpctrain.preflight.full.storage import PROBE as STORAGE_PROBE
from hpctrain.preflight.gather import ask_hosts, this_python
from hpctrain.preflight.request import Request, write_ssh_config
from hpctrain.preflight.show import name_hosts
from hpctrain.preflight.verdict import FAIL, Verdict

LAUNCHES: dict[str, Callable[[Place], dict[str, Any]]] = {
    allreduce.CODE: allreduce.run_all_reduce,
    pairs.CODE: pairs.run_pairs,
    rehearsal.CODE: rehearsal.run_rehearsal,
}
# About how long each takes (s): for the ETA, until it is measured.
USUAL_S = {DEVICES_PROBE: 20.0, STORAGE_PROBE: 8.0, allreduce.CODE: 15.0, rehearsal.CODE: 25.0}
PAIR_S = 5.0


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to do: ask all hosts one probe, or start ranks; and what it is judged by."""

    title: str
    probe: Probe | None
    checks: tuple[Check, ...]


def plan_parts(checks: Sequence[Check]) -> list[Part]:
    """Return what the full level's checks come to; checks with one probe share it.

    >>> from hpctrain.preflight.full.device import MATRIX, MEMORY_RATE
    >>> [part.title for part in plan_parts([MATRIX, MEMORY_RATE, rehearsal.REHEARSAL])]
    ['devices', 'rehearsal']
    """
    parts: dict[str, Part] = {}
    for check in checks:
        probe = check.probes[0] if check.probes else None
        title = probe.name if probe else check.code
        known = parts.get(title, Part(title, probe, ()))
        parts[title] = replace(known, checks=(*known.checks, check))
    return list(parts.values())


def estimate_part_s(part: Part, hosts: int) -> float:
    """Return about how long a part takes (s)."""
    if part.title != pairs.CODE:
        return USUAL_S.get(part.title, 20.0)
    every = hosts <= pairs.ALL_PAIRS_HOSTS
    rounds = max(1, hosts - 1 + hosts % 2) if every else pairs.MOST_ROUNDS
    return rounds * math.ceil(max(1, hosts // 2) / pairs.PARALLEL) * PAIR_S


def run_full(
    request: Request, fleet: Fleet, checks: Sequence[Check], console: BenchConsole,
    *, failed: Sequence[Verdict] = (),
) -> tuple[Fleet, list[Verdict]]:  # fmt: skip
    """Run the parts of the checks; return what is known then, and the verdicts on it.

    Args:
        failed: what has failed before: no ranks are started then.
    """
    parts = plan_parts(checks)
    left = {part.title: estimate_part_s(part, len(request.tasks)) for part in parts}
    verdicts: list[Verdict] = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hpctrain-preflight-"))
        request = write_ssh_config(request, folder)
        place = None
        stack.enter_context(console.bar(len(parts), lambda: sum(left.values())))
        for part in parts:
            console.begin(part.title)
            if part.probe is not None:
                fleet = ask_part(request, fleet, part.probe)
            elif why_not := _why_no_ranks(request, fleet, failed):
                fleet = with_fact(fleet, part.title, {"skip": why_not})
            else:
                try:
                    place = place or stack.enter_context(opened_place(request, console.step))
                    fact = LAUNCHES[part.title](place)
                except (HpctrainError, OSError) as problem:
                    fact = {"error": str(problem)}
                fleet = with_fact(fleet, part.title, fact)
            found = [verdict for check in part.checks for verdict in check.judge(fleet)]
            left.pop(part.title)
            console.done(_worst(found))
            verdicts += found
    return fleet, with_same_words(verdicts, request.asked)


def ask_part(request: Request, fleet: Fleet, probe: Probe) -> Fleet:
    """Ask the hosts that can be asked one more thing."""
    tasks = {
        host: replace(task, probes=(probe.name,))
        for host, task in fleet.tasks.items()
        if host not in fleet.unreachable
    }
    answers, unreachable, _ = ask_hosts(
        tasks, request.local, request.ssh_options, this_python(),
        python_options=request.python_options, timeout_s=probe.timeout_s,
    )  # fmt: skip
    silent = {host: Answer(error=why) for host, why in unreachable.items()}
    answered = {**answers.get(probe.name, {}), **silent}
    return replace(
        fleet,
        answers={**fleet.answers, probe.name: answered},
        unreachable={**fleet.unreachable, **unreachable},
    )


def with_fact(fleet: Fleet, code: str, fact: dict[str, Any]) -> Fleet:
    """Return the fleet with what the launching machine knows for a check."""
    return replace(fleet, facts={**fleet.facts, code: fact})


def _why_no_ranks(request: Request, fleet: Fleet, failed: Sequence[Verdict]) -> str:
    """Return why ranks are not started; "" where they are."""
    codes = tuple(dict.fromkeys(verdict.code for verdict in failed))
    if codes:
        return f"no ranks are started after a failure ({', '.join(codes)})"
    if request.plan is None:
        return "no launch can be planned: hpctrain preflight --only mpi"
    if fleet.unreachable:
        return f"not every host can be reached: {name_hosts(tuple(fleet.unreachable), 0)}"
    return ""


def _worst(found: Sequence[Verdict]) -> str:
    order = ("FAIL", "WARN", "PASS", "SKIP")
    statuses = [verdict.status for verdict in found]
    worst = next((status for status in order if status in statuses), "nothing to say")
    hosts = dict.fromkeys(h for v in found if v.status == FAIL for h in v.hosts)
    return f"{worst} on {name_hosts(tuple(hosts), 0)}" if hosts else worst
