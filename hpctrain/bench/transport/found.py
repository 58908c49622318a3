"""Which transports were found, as a value, and whether they are what was asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

# Between hosts; and within one.
TRANSPORTS = ("ib", "efa", "tcpx", "socket", "nvlink")
WITHIN = ("nvlink",)
EVIDENCE_LINES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportFound:
    """What a library says that it used.

    Args:
        library: ``NCCL`` or the MPI's name.
        between: of ``ib``, ``efa``, ``tcpx``, ``socket``, those between hosts; a name of the
            library's own where it is none of them.
        within: of ``nvlink``, ``pcie``, ``shm``, those within a host; likewise.
        evidence: the library's own words.
    """

    library: str
    between: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()


def merge_found(all_found: Iterable[TransportFound]) -> TransportFound | None:
    """Return what all ranks found together; None where none said anything."""
    merged = None
    for found in all_found:
        if merged is None:
            merged = found
            continue
        merged = replace(
            merged,
            between=tuple(dict.fromkeys((*merged.between, *found.between))),
            within=tuple(dict.fromkeys((*merged.within, *found.within))),
            evidence=tuple(dict.fromkeys((*merged.evidence, *found.evidence))),
        )
    return merged


def judge_transport(expected: str, found: TransportFound | None, hosts: int) -> str:
    """Return what is wrong with what was found; "" where it is what was asked for.

    Args:
        hosts: how many hosts have ranks.

    >>> judge_transport("socket", TransportFound(library="Open MPI", between=("socket",)), 2)
    ''
    >>> judge_transport("ib", TransportFound(library="NCCL", between=("socket",)), 2)
    'a silent fall back, got socket between hosts by NCCL; expected ib'
    """
    if found is None:
        return f"nothing was reported, got no word of NCCL's or MPI's; expected {expected}"
    is_within = expected in WITHIN
    used = found.within if is_within else found.between
    where = "within a host" if is_within else "between hosts"
    if not used:
        if not is_within and hosts == 1:
            return f"all ranks are on one host, got no traffic between hosts; expected {expected}"
        return f"{found.library} reports nothing {where}, got no transport; expected {expected}"
    if set(used) == {expected}:
        return ""
    got = " and ".join(used)
    return f"a silent fall back, got {got} {where} by {found.library}; expected {expected}"


def describe_found(found: TransportFound) -> str:
    """Return what was found, in words.

    >>> describe_found(TransportFound(library="NCCL", between=("ib",), within=("nvlink",)))
    'ib between hosts, nvlink within hosts, by NCCL'
    """
    parts = []
    if found.between:
        parts.append(f"{' and '.join(found.between)} between hosts")
    if found.within:
        parts.append(f"{' and '.join(found.within)} within hosts")
    return ", ".join([*(parts or ["nothing"]), f"by {found.library}"])
