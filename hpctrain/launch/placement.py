"""Which host gets how many ranks? A pure function of slots, limits and the number asked for.

MPIs differ in what slots and max_slots mean (Open MPI 4 ignores max_slots when it is told to
oversubscribe, Hydra never refuses), so it is decided here, and mpirun gets the outcome.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpctrain.errors import PlanError
from hpctrain.facts import Facts
from hpctrain.hosts import LOCALHOST, Host
from hpctrain.launch.request import LaunchRequest


@dataclass(frozen=True, slots=True)
class Placement:
    """How many ranks a host gets, of how many slots."""

    host: str
    ranks: int
    slots: int


def plan_placement(
    request: LaunchRequest, facts: Facts, warnings: list[str]
) -> tuple[Placement, ...]:
    """Fill the hosts' slots in their order, and beyond them only where that is allowed.

    Raises:
        PlanError: np is over the slots (or over max_slots, whatever is asked).
    """
    hosts = merge_launcher(request.hosts or (Host(LOCALHOST),), facts)
    slots = [_slots_of(host, request, facts, warnings) for host in hosts]
    limits = [
        host.max_slots or (sys.maxsize if request.oversubscribe else count)
        for host, count in zip(hosts, slots, strict=True)
    ]
    np = request.np or sum(slots)
    counted = ", ".join(f"{h.name}:{s}" for h, s in zip(hosts, slots, strict=True))
    what = "GPUs" if _counts_gpus(hosts, request, facts) else "slots"
    if np > sum(limits):
        bound = min(sum(limits), sys.maxsize)
        if bound > sum(slots):
            raise PlanError(
                f"--np: more ranks than max_slots allow, got {np}; expected at most {bound} "
                f"({counted}). Lower --np or raise max_slots."
            )
        raise PlanError(
            f"--np: more ranks than {what}, got {np}; expected at most {sum(slots)} ({counted}). "
            f"Use --np {sum(slots)}, give more slots, or share them with --oversubscribe."
        )
    ranks = [0] * len(hosts)
    for index, count in enumerate(slots):
        ranks[index] = min(count, np - sum(ranks))
    if np > sum(slots):
        warnings.append(
            f"{np} ranks share {sum(slots)} {what.rstrip('s') if sum(slots) == 1 else what} "
            f"({counted}): each runs slower than on its own."
        )
    while sum(ranks) < np:
        for index, limit in enumerate(limits):
            ranks[index] += int(sum(ranks) < np and ranks[index] < limit)
    placed = zip(hosts, ranks, slots, strict=True)
    return tuple(Placement(host.name, count, free) for host, count, free in placed if count)


def merge_launcher(hosts: Sequence[Host], facts: Facts) -> list[Host]:
    """Return the hosts with all names of the launching machine as one.

    Slots that are given add up, as those of any host that stands twice; cores count once.
    """
    own = [host for host in hosts if facts.is_launcher(host.name)]
    if len(own) <= 1:
        return list(hosts)
    given = [host.slots for host in own if host.slots is not None]
    limits = [host.max_slots for host in own if host.max_slots is not None]
    merged = replace(
        own[0],
        slots=sum(given) if given else None,
        max_slots=sum(limits) if len(limits) == len(own) else None,
    )
    return [merged if host is own[0] else host for host in hosts if host not in own[1:]]


def count_slots(hosts: Sequence[Host], request: LaunchRequest, facts: Facts) -> dict[str, int]:
    """Return the slots of each host, as :func:`plan_placement` counts them."""
    return {host.name: _slots_of(host, request, facts, []) for host in hosts}


def _slots_of(host: Host, request: LaunchRequest, facts: Facts, warnings: list[str]) -> int:
    if host.slots is not None:
        return host.slots
    known = facts.of(host.name)
    if known is not None:
        return known.cores if request.counts_cores else known.default_slots
    warnings.append(
        f"{host.where or host.name}: {host.name} has no slots= and was never asked: "
        "1 slot assumed. Write slots=N, or ask it with --probe."
    )
    return 1


def _counts_gpus(hosts: Sequence[Host], request: LaunchRequest, facts: Facts) -> bool:
    known = [facts.of(host.name) for host in hosts if host.slots is None]
    return bool(known) and not request.counts_cores and any(k is not None and k.gpus for k in known)
