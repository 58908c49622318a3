"""The ssh configuration that mpirun's ssh reads: users, ports, time limits, then the user's own.

Every launch on other hosts gets one: without ServerAliveInterval an ssh to a dead host waits for
ever, and without BatchMode it asks for passwords that nobody sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hpctrain.facts import is_address
from hpctrain.hosts import Host


def host_alias(name: str) -> str:
    """Return the name that mpirun gets for a host.

    Open MPI and Hydra read a colon in a name as the start of a slot count, so an IPv6 address
    gets an alias that the ssh configuration explains.

    >>> host_alias("node1"), host_alias("fe80::1")
    ('node1', 'ip6-fe80--1')
    """
    return f"ip6-{name.replace(':', '-')}" if ":" in name and is_address(name) else name


def parse_ssh_addresses(text: str, names: Iterable[str]) -> dict[str, str]:
    """Return the addresses that an ssh configuration gives to hosts, so that no name service has
    to know them.

    Only blocks that name a host whole count, not patterns, and only HostNames that are addresses;
    in ssh's own rule the first value found counts.

    >>> parse_ssh_addresses("Host n1 one\\n  HostName 10.0.0.1\\nHost *\\n  User ada", ["n1", "n2"])
    {'n1': '10.0.0.1'}
    """
    wanted, found = set(names), {}
    block: set[str] = set()
    for line in text.splitlines():
        key, *values = line.replace("=", " ", 1).split() or [""]
        if key.lower() in ("host", "match"):
            block = wanted.intersection(values) if key.lower() == "host" else set()
        elif key.lower() == "hostname" and values and is_address(values[0]):
            found.update((name, values[0]) for name in block - found.keys())
    return found


def render_ssh_config(hosts: Sequence[Host], ssh_configs: Sequence[str]) -> str:
    """Return an ssh configuration; in ssh's own rule the first value found counts.

    Args:
        hosts: remote hosts, with users and ports where the hostfile gives them.
        ssh_configs: absolute paths of files that count before the user's own.
    """
    lines = ["# Made by hpctrain; the first value found counts."]
    for host in hosts:
        alias = host_alias(host.name)
        settings = [
            f"  HostName {host.name}" if alias != host.name else "",
            f"  User {host.user}" if host.user else "",
            f"  Port {host.port}" if host.port else "",
        ]
        if any(settings):
            lines += [f"Host {alias}", *filter(None, settings)]
    lines += [
        "Host *",
        "  BatchMode yes",
        "  ServerAliveInterval 5",
        "  ServerAliveCountMax 2",
        "  ConnectTimeout 10",
    ]
    own = ("~/.ssh/config", "/etc/ssh/ssh_config")
    lines += [f'Include "{path}"' for path in ssh_configs]
    lines += [f"Include {path}" for path in own]
    return "\n".join(lines) + "\n"
