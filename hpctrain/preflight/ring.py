"""Whom each host tries to reach: the next two in a ring, so that n hosts make 2n tries. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpctrain.hosts import Host
from hpctrain.launch.ssh_config import host_alias

NEXT = 2


def plan_neighbours(hosts: Sequence[Host]) -> dict[str, list[dict[str, Any]]]:
    """Return host → the hosts that it tries, each with what ssh needs to know of it.

    >>> tried = plan_neighbours([Host("a"), Host("b"), Host("c")])
    >>> [peer["name"] for peer in tried["b"]]
    ['c', 'a']
    """
    peers = [
        {"name": h.name, "alias": host_alias(h.name), "user": h.user, "port": h.port} for h in hosts
    ]
    steps = range(1, min(NEXT, len(peers) - 1) + 1)
    return {
        host.name: [peers[(place + step) % len(peers)] for step in steps]
        for place, host in enumerate(hosts)
    }
