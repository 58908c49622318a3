"""Which hosts get how many ranks of a case? A pure function of slots and np.

Fill rules:

1. Packed: on the first host that has enough slots; where none has, hosts are filled in their
   order, as ``hpctrain run`` does.
2. Spread, besides, where one host was enough and several are there: evenly on the fewest hosts,
   two or more, that np can be divided by. One node against several, at the same np.
3. More ranks than slots, where that is allowed: all slots, then one more on each host in turn.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

Placed = tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """A host and how many ranks it takes.

    Args:
        limit: most ranks; above the slots where they may be shared.
        cores: None where the host was never asked.
    """

    name: str
    slots: int
    limit: int = sys.maxsize
    cores: int | None = None


def default_sizes(rooms: Sequence[Room]) -> tuple[int, ...]:
    """Return 1, 2, 4 … up to all slots, which are always the last.

    >>> default_sizes([Room(name="a", slots=4), Room(name="b", slots=2)])
    (1, 2, 4, 6)
    """
    slots = sum(room.slots for room in rooms)
    return (*(1 << power for power in range(slots.bit_length()) if 1 << power < slots), slots)


def plan_placements(np: int, rooms: Sequence[Room]) -> tuple[Placed, ...]:
    """Return the placements of np ranks, by the rules above; none where there is no room.

    >>> two = [Room(name="a", slots=4), Room(name="b", slots=4)]
    >>> plan_placements(4, two)
    ((('a', 4),), (('a', 2), ('b', 2)))
    >>> plan_placements(6, two)
    ((('a', 4), ('b', 2)),)
    """
    if np > sum(room.slots for room in rooms):
        placed = _share_slots(np, rooms)
        return (placed,) if placed else ()
    whole = next((room for room in rooms if room.slots >= np), None)
    if whole is None:
        return (_fill(np, rooms),)
    spread = _spread(np, rooms)
    return (((whole.name, np),), spread) if spread else (((whole.name, np),),)


def fewest_threads(placements: Sequence[Placed], rooms: Sequence[Room]) -> int | None:
    """Return the threads that a rank can have in every one of these placements.

    A rank alone on a machine would else get all of its cores, and seem fast for that.

    Returns:
        None where the cores of a host are not known.
    """
    cores = {room.name: room.cores for room in rooms}
    counts = []
    for name, ranks in (place for placed in placements for place in placed):
        known = cores[name]
        if known is None:
            return None
        counts.append(max(1, known // ranks))
    return min(counts)


def _fill(np: int, rooms: Sequence[Room]) -> Placed:
    placed, left = [], np
    for room in rooms:
        if left:
            placed.append((room.name, min(left, room.slots)))
            left -= placed[-1][1]
    return tuple(placed)


def _spread(np: int, rooms: Sequence[Room]) -> Placed | None:
    for nodes in range(2, min(np, len(rooms)) + 1):
        share = np // nodes
        fitting = [room for room in rooms if room.slots >= share]
        if np % nodes == 0 and len(fitting) >= nodes:
            return tuple((room.name, share) for room in fitting[:nodes])
    return None


def _share_slots(np: int, rooms: Sequence[Room]) -> Placed | None:
    """Place as :func:`hpctrain.launch.placement.plan_placement` does beyond the slots."""
    if np > sum(min(room.limit, np) for room in rooms):
        return None
    ranks = [room.slots for room in rooms]
    while sum(ranks) < np:
        for index, room in enumerate(rooms):
            ranks[index] += int(sum(ranks) < np and ranks[index] < room.limit)
    return tuple((room.name, count) for room, count in zip(rooms, ranks, strict=True))
