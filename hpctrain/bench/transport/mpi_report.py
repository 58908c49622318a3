"""What MPIs print of their transports when asked → the transports. Pure.

Sources: Open MPI 5, hook ``comm_method`` (``ompi_display_comm=mpi_init``), which connects all hosts
and then says how; Open MPI 4, ``btl_base_verbose``; UCX, ``UCX_LOG_LEVEL=info``; Intel MPI,
``I_MPI_DEBUG=5``. Captures of each in tests/unit/test_transport_reports.py. MPICH says nothing that
could be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from hpctrain.bench.transport.found import EVIDENCE_LINES, TransportFound

# "  off-host: all connections are tcp", or "most", and then "  host 1: [3x tcp] [1x sm]".
_SUMMARY = re.compile(
    r"^\s*(?P<where>on|off)-host:\s+(?:all|most) connections are (?P<what>.+?)\s*$"
)
_EXCEPTION = re.compile(r"^\s*host \d+:(?P<what>(?: \[\d+x [^\]]+\])+)")
# "[n1:00123] mca: bml: Using tcp btl for send to [[11090,1],2] on node n2"
_BML = re.compile(
    r"^\[(?P<own>[^:\]]+):\d+\] mca: bml: Using (?P<what>\S+) btl .* on node (?P<node>\S+)"
)
# "ucp_context_0 inter-node cfg#8 tag(rc_mlx5/mlx5_2:1 …)"; before 1.14 "ep_cfg[1]: tag(…)".
_UCX = re.compile(
    r"UCX\s+INFO\s.*?\b(?P<where>inter-node cfg|intra-node cfg|ep_cfg)\S* \w+\((?P<what>[^)]*)\)"
)
# "[0] MPI startup(): libfabric provider: tcp"
_PROVIDER = re.compile(r"MPI startup\(\): libfabric provider: (?P<what>\S+)")

BETWEEN, WITHIN = "between", "within"
_SHARED_MEMORY = ("sm", "vader", "posix", "sysv", "cma", "xpmem", "knem", "smcuda")
_NONE = ("self", "n/a", "memory")
_KINDS = {
    "tcp": "socket", "sockets": "socket", "udp": "socket", "net": "socket",
    "efa": "efa", "srd": "efa", "verbs": "ib", "mlx": "ib", "openib": "ib",
    **dict.fromkeys(_SHARED_MEMORY, "shm"),
}  # fmt: skip
# UCX's transports over InfiniBand and RoCE: rc_mlx5, rc_verbs, dc_mlx5, ud_mlx5 …
_UCX_IB = ("rc", "dc", "ud")


class _Said(NamedTuple):
    """One word of an MPI: a transport's name, and where it is used."""

    where: str
    name: str
    line: str


def parse_mpi_report(library: str, text: str) -> TransportFound | None:
    """Return what an MPI says that its ranks use; None where it says nothing.

    Args:
        library: its name, for people.
        text: what all ranks printed.
    """
    lines = text.splitlines()
    said = [*_from_summary(lines), *_from_bml(lines), *_from_provider(lines)]
    # "ucx" is a layer: what lies below it UCX itself says.
    below = list(_from_ucx(lines)) if not said or any(word.name == "ucx" for word in said) else []
    if below:
        said = [word for word in said if word.name != "ucx"] + below
    if not said:
        return None
    between, within = (_kinds(said, where) for where in (BETWEEN, WITHIN))
    told = [word for word in said if word.name not in _NONE]
    told.sort(key=lambda word: word.where)  # "between" first: that is what people ask about
    # Reversed, so that of each transport the first line stays.
    evidence = {(w.where, _kind_of(w.name)): w.line.strip() for w in reversed(told)}
    return TransportFound(
        library=_title(library),
        between=tuple(kind for kind in between if kind != "shm"),
        within=within,
        evidence=tuple(dict.fromkeys(reversed(evidence.values())))[:EVIDENCE_LINES],
    )


def _from_summary(lines: Iterable[str]) -> Iterator[_Said]:
    for line in lines:
        if match := _SUMMARY.match(line):
            where = WITHIN if match["where"] == "on" else BETWEEN
            for name in re.split(r"\s+or\s+", match["what"]):
                yield from (_Said(where, each, line) for each in _below_ucx(name))
        elif match := _EXCEPTION.match(line):
            # It does not say where; shared memory between hosts is left out again.
            for name in re.findall(r"\[\d+x ([^\]]+)\]", match["what"]):
                yield from (_Said(BETWEEN, each, line) for each in _below_ucx(name))


def _from_bml(lines: Iterable[str]) -> Iterator[_Said]:
    for line in lines:
        if match := _BML.match(line):
            is_own = match["own"].partition(".")[0] == match["node"].partition(".")[0]
            yield _Said(WITHIN if is_own else BETWEEN, match["what"], line)


def _from_provider(lines: Iterable[str]) -> Iterator[_Said]:
    """Intel MPI asks libfabric between hosts alone, and says so only where there are several."""
    for line in lines:
        if match := _PROVIDER.search(line):
            yield _Said(BETWEEN, match["what"].partition(";")[0], line)


def _from_ucx(lines: Iterable[str]) -> Iterator[_Said]:
    for line in lines:
        if match := _UCX.search(line):
            names = [path.partition("/")[0] for path in match["what"].split()]
            is_within = any(name in (*_SHARED_MEMORY, *_NONE) for name in names)
            if match["where"] != "ep_cfg":
                is_within = match["where"].startswith("intra")
            for name in names:
                if not (is_within and name not in _SHARED_MEMORY):
                    yield _Said(WITHIN if is_within else BETWEEN, name, line)


def _below_ucx(name: str) -> list[str]:
    """Return the transports in Open MPI's word for UCX and what lies below it.

    >>> _below_ucx("ucx=posix;memory,rc_mlx5;mlx5_2:1"), _below_ucx("tcp")
    (['posix', 'rc_mlx5'], ['tcp'])
    """
    layer, equals, below = name.partition("=")
    return [each.partition(";")[0] for each in below.split(",")] if equals else [layer]


def _kinds(said: Iterable[_Said], where: str) -> tuple[str, ...]:
    names = [word.name for word in said if word.where == where and word.name not in _NONE]
    return tuple(dict.fromkeys(_kind_of(name) for name in names))


def _kind_of(name: str) -> str:
    if name in _KINDS:
        return _KINDS[name]
    return "ib" if name.partition("_")[0] in _UCX_IB else name


def _title(library: str) -> str:
    """Return a library's name without its version.

    >>> _title("Open MPI v5.0.11"), _title("Intel(R) MPI Library 2021.18 for Linux* OS")
    ('Open MPI', 'Intel MPI')
    """
    names = {"Open MPI": "Open MPI", "Intel": "Intel MPI", "MPICH": "MPICH"}
    return next((title for start, title in names.items() if library.startswith(start)), "MPI")
