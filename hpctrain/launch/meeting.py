"""Where the ranks of a torch.distributed program meet: MASTER_ADDR and MASTER_PORT.

With RANK and WORLD_SIZE, which the shim sets, they are what ``init_method="env://"`` reads
(torch.distributed documentation, "Environment variable initialization").
"""

from __future__ import annotations

import ipaddress
import socket
import zlib

from hpctrain.facts import Facts

ADDRESS_VARIABLE, PORT_VARIABLE = "MASTER_ADDR", "MASTER_PORT"
MEETING_RULE = "where torch.distributed's ranks meet; a start takes the next port if it is in use"
MEETING_SOURCE = "torch.distributed, 'Environment variable initialization'"
# Below the ports that Linux gives to outgoing connections (net.ipv4.ip_local_port_range).
FIRST_PORT, LAST_PORT = 20000, 32000


def plan_meeting_address(
    host: str, facts: Facts, subnet: str | None, channel_address: str, *, local_only: bool
) -> str:
    """Return rank 0's host as the other hosts see it.

    Args:
        host: rank 0's, as in the hostfile.
        subnet: the network chosen for the ranks' traffic, if any.
        channel_address: where the launcher listens, reachable from every host.
    """
    if local_only:
        return "127.0.0.1"
    if facts.is_launcher(host):
        return channel_address
    addresses = [a for a in facts.addresses.get(host, ()) if not _is_loopback(a)]
    known = facts.hosts.get(host)
    if subnet and known:
        addresses += [a.partition("/")[0] for i in known.interfaces for a in i.addresses]
    network = ipaddress.ip_network(subnet) if subnet else None
    inside = [a for a in addresses if network and ipaddress.ip_address(a) in network]
    return next(iter([*inside, *addresses]), host)


def plan_meeting_port(run_path: str) -> int:
    """Return a port that depends on the run alone, so that a dry run shows the same."""
    return FIRST_PORT + zlib.crc32(run_path.encode()) % (LAST_PORT - FIRST_PORT)


def find_free_port(wanted: int) -> int:
    """Return the first port from `wanted` on that nobody listens on on this machine.

    Rank 0 may run on another host, where the port is then most likely free as well.
    """
    for port in (*range(wanted, LAST_PORT), *range(FIRST_PORT, wanted)):
        with socket.socket() as probe:
            # As the store will do: a port that an ended run has just left is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    return wanted


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
