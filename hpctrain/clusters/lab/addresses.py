"""Which network a lab gets. Pure."""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Iterable

from hpctrain.errors import ClusterError

# Set aside for tests of networks, never routed on the internet (RFC 2544, appendix C.2.2).
ADDRESS_RANGE = ipaddress.ip_network("198.18.0.0/15")
SUBNET_BITS = 24


def plan_lab_subnet(name: str, in_use: Iterable[str]) -> str:
    """Return a network that overlaps none in use; the same name gets the same where it is free.

    >>> plan_lab_subnet("lab", ["10.0.0.0/8"])
    '198.19.196.0/24'

    Raises:
        ClusterError: all of them are in use.
    """
    taken = [ipaddress.ip_interface(each).network for each in in_use]
    subnets = list(ADDRESS_RANGE.subnets(new_prefix=SUBNET_BITS))
    first = zlib.crc32(name.encode()) % len(subnets)
    for subnet in subnets[first:] + subnets[:first]:
        if not any(subnet.overlaps(each) for each in taken):
            return str(subnet)
    raise ClusterError(
        f"lab: no free network, got addresses or routes in all of {ADDRESS_RANGE}; expected a "
        f"free /{SUBNET_BITS} there. Look at them: ip route show table all"
    )
