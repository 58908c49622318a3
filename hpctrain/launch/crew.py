"""Which hosts does the next attempt run on, and with how many ranks? Pure.

What is known of hosts comes in as dictionaries of reasons; `restart.py` finds it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpctrain.errors import PlanError, did_you_mean
from hpctrain.hosts import Host


def split_spares(
    hosts: Sequence[Host], spares: int | Sequence[str]
) -> tuple[tuple[Host, ...], tuple[Host, ...]]:
    """Return the hosts that take ranks at first, and those that wait.

    Args:
        spares: how many of the last hosts, or their names.

    >>> active, waiting = split_spares([Host("a"), Host("b"), Host("c")], 1)
    >>> [host.name for host in waiting]
    ['c']

    Raises:
        PlanError: a spare is no host of the list, or none is left for ranks.
    """
    names = [host.name for host in hosts]
    where = "--spares (launch.spares)"
    if isinstance(spares, int):
        waiting = names[len(names) - spares :] if spares else []
    else:
        waiting = list(spares)
        for name in waiting:
            if name not in names:
                raise PlanError(
                    f"{where}: no host of that name, got '{name}'; expected some of "
                    f"{', '.join(names[:8]) or 'a hostfile'}.{did_you_mean(name, names)}"
                )
    count = spares if isinstance(spares, int) else len(set(waiting))
    if count and count >= len(names):
        raise PlanError(
            f"{where}: no host is left for ranks, got {count} spares of {len(names)} hosts; "
            f"expected at most {max(0, len(names) - 1)}."
        )
    active = tuple(host for host in hosts if host.name not in waiting)
    return active, tuple(host for host in hosts if host.name in waiting)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The hosts of the next attempt, in the order of their ranks.

    Args:
        hosts: those that take ranks.
        others: those that wait: spares, and whoever has left.
        np: ranks.
        left: who took ranks before and does not now, each with the reason.
        came: who does now and did not.
    """

    hosts: tuple[Host, ...]
    others: tuple[Host, ...]
    np: int
    left: Mapping[str, str]
    came: tuple[str, ...]


def choose_crew(
    current: Sequence[Host], others: Sequence[Host], slots: Mapping[str, int], wanted_np: int,
    min_np: int, unfit: Mapping[str, str], blamed: Mapping[str, str], doubtful: Mapping[str, str],
) -> Crew | None:  # fmt: skip
    """Choose who goes on: as many ranks as wanted if the hosts allow, with few changes.

    Args:
        current: hosts that took ranks, in their order; rank 0's stays first where it can.
        others: hosts that did not: spares in their order, then those that left earlier.
        slots: ranks that each host takes at most.
        min_np: the fewest ranks that are worth going on with.
        unfit: hosts that do not answer, or cannot run ranks, with the reason.
        blamed: hosts that fell silent: out, though they may answer now, unless too few are left.
        doubtful: hosts that have failed again and again: they make room for spares.

    Returns:
        None where too few hosts are fit.
    """
    for out in ({**blamed, **unfit}, unfit):
        crew = _fill(current, others, slots, wanted_np, out, doubtful)
        if crew.np >= min_np:
            return crew
    return None


def _fill(
    current: Sequence[Host], others: Sequence[Host], slots: Mapping[str, int], wanted_np: int,
    out: Mapping[str, str], doubtful: Mapping[str, str],
) -> Crew:  # fmt: skip
    fit = [host for host in (*current, *others) if host.name not in out]
    by_preference = [
        *(host for host in fit if host.name not in doubtful),
        *(host for host in fit if host.name in doubtful),
    ]
    taken: list[str] = []
    free = 0
    for host in by_preference:
        if free < wanted_np:
            taken.append(host.name)
            free += slots[host.name]
    before = {host.name for host in current}
    return Crew(
        hosts=tuple(host for host in (*current, *others) if host.name in taken),
        # Spares first, in their order: who left may come back, but last.
        others=tuple(host for host in (*others, *current) if host.name not in taken),
        np=min(wanted_np, free),
        left={
            name: out.get(name) or doubtful.get(name) or "not needed"
            for name in (host.name for host in current)
            if name not in taken
        },
        came=tuple(name for name in taken if name not in before),
    )


def count_capacity(
    slots: Mapping[str, int], max_slots: Mapping[str, int | None], np: int, np_slots: int
) -> dict[str, int]:
    """Return the ranks that each host takes: its slots, or more where slots were shared at first.

    Args:
        np: ranks of the first attempt.
        np_slots: slots of the hosts that took them.

    >>> count_capacity({"a": 2, "b": 2}, {}, np=8, np_slots=4)
    {'a': 4, 'b': 4}
    """
    capacity = {}
    for name, count in slots.items():
        shared = count * np // np_slots if np > np_slots else count
        limit = max_slots.get(name)
        capacity[name] = min(shared, limit) if limit else shared
    return capacity


def expect_ranks(
    hosts: Sequence[str], placed: Mapping[str, int], capacity: Mapping[str, int]
) -> dict[str, int]:
    """Return host → the ranks that it had last; of one that had none yet, as many as others had.

    Its slots may be more than it has GPUs for, as where it has no part in so small a run.

    Args:
        placed: host → ranks, of hosts that had some.

    >>> expect_ranks(["a", "spare"], {"a": 8}, {"a": 16, "spare": 4})
    {'a': 8, 'spare': 4}
    """
    most = max(placed.values())
    return {host: placed.get(host) or max(1, min(capacity[host], most)) for host in hosts}
