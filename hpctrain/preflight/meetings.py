"""Who tries to reach whom on which ports, to find a firewall between hosts. Pure.

Each host listens for a moment, and tries its neighbours in a ring: so every host is tried by two
others and tries two, however many there are. More hosts than are asked at once form a chain: the
ring's two ends would not listen at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpctrain.executor import MAX_PARALLEL_HOSTS
from hpctrain.launch.meeting import FIRST_PORT, LAST_PORT

# Open MPI's ranks listen on the first free ports from 1024 on (btl_tcp_port_min_v4), unless told
# otherwise; mpirun, its daemons and hpctrain's channel on those that Linux hands out
# (net.ipv4.ip_local_port_range, whose default this is); torch.distributed's ranks meet between.
MPI_PORTS = (1024, 1151)
HANDED_OUT_PORTS = (32768, 60999)
CODE = "firewall"

Range = tuple[int, int]


def plan_meetings(
    hosts: Sequence[str], environ: Mapping[str, str], ring: int = MAX_PARALLEL_HOSTS
) -> dict[str, dict[str, Any]]:
    """Return host → its neighbours and the ranges of ports to be tried.

    >>> def neighbours(hosts):
    ...     planned = plan_meetings(hosts, {}, ring=3)
    ...     return {host: meeting["neighbours"] for host, meeting in planned.items()}
    >>> neighbours(["a", "b", "c"])
    {'a': ['b', 'c'], 'b': ['c', 'a'], 'c': ['a', 'b']}
    >>> neighbours(["a", "b", "c", "d"])
    {'a': ['b'], 'b': ['c', 'a'], 'c': ['d', 'b'], 'd': ['c']}
    """
    ranges = [list(each) for each in plan_port_ranges(environ)]
    ends = [*hosts[-1:], *hosts[:1]] if len(hosts) <= ring else []
    meetings = {}
    for place, host in enumerate(hosts):
        after = hosts[place + 1 : place + 2] or ends[1:]
        before = hosts[place - 1 : place] if place else ends[:1]
        neighbours = [each for each in dict.fromkeys([*after, *before]) if each != host]
        meetings[host] = {"neighbours": neighbours, "ranges": ranges}
    return meetings


def plan_port_ranges(environ: Mapping[str, str]) -> list[Range]:
    """Return the ranges of ports that a run listens on, as MPI's own variables set them.

    >>> plan_port_ranges({})
    [(1024, 1151), (20000, 32000), (32768, 60999)]
    >>> plan_port_ranges({"OMPI_MCA_btl_tcp_port_min_v4": "40000"})[0]
    (40000, 40127)
    """
    first = environ.get("OMPI_MCA_btl_tcp_port_min_v4", "")
    count = environ.get("OMPI_MCA_btl_tcp_port_range_v4", "")
    mpi = MPI_PORTS
    if first.isdigit() and 0 < int(first) < 65536:
        width = min(int(count) if count.isdigit() and int(count) else 128, 65536 - int(first))
        mpi = (int(first), int(first) + width - 1)
    return [mpi, (FIRST_PORT, LAST_PORT), HANDED_OUT_PORTS]


def sample_ports(ports: Range, count: int = 3) -> list[int]:
    """Return ports of a range that are tried in place of all: the same on every host.

    >>> sample_ports((20000, 32000)), sample_ports((7, 8))
    ([23000, 26000, 29000], [7, 8])
    """
    low, high = ports
    step = (high - low) / (count + 1)
    return sorted({low + round(step * place) for place in range(1, count + 1)})


def choose_address(known: Sequence[str], subnet: str | None, launcher: Sequence[str]) -> str | None:
    """Return the address at which a neighbour is tried; None where only its name is left.

    Args:
        known: the neighbour's, as the launching machine resolves its name.
        subnet: the network that was chosen for MPI.
        launcher: the launching machine's own, for a neighbour whose name means loopback there.
    """
    import ipaddress

    def usable(addresses: Sequence[str]) -> list[str]:
        parsed = [(text, ipaddress.ip_address(text.partition("%")[0])) for text in addresses]
        return [text for text, ip in parsed if not ip.is_loopback and not ip.is_link_local]

    candidates = usable(known) or (usable(launcher) if known else [])
    if subnet:
        network = ipaddress.ip_network(subnet)
        inside = [text for text in candidates if ipaddress.ip_address(text) in network]
        candidates = inside or candidates
    return candidates[0] if candidates else None
