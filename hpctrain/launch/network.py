"""Which network do the ranks talk over, and where does the launcher listen? Pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from hpctrain.errors import PlanError
from hpctrain.facts import Facts, is_address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def plan_subnet(
    declared: str | None, facts: Facts, remote: Sequence[str], warnings: list[str]
) -> tuple[str | None, str]:
    """Choose the network for MPI's and our own traffic; return its CIDR and the fact behind it.

    Raises:
        PlanError: the declared network is none, or the launcher has no interface in it.
    """
    network = _parse_network(declared) if declared is not None else None
    if not remote:
        if network is not None:
            warnings.append("launch.subnet is ignored: all ranks are on this machine.")
        return None, ""
    if network is not None:
        return _check_subnet(network, facts), "launch.subnet"
    known = [facts.hosts.get(name) for name in remote]
    for network in dict.fromkeys(facts.launcher.networks()):
        subnet = ipaddress.ip_network(network)
        if all(host is not None and network in host.networks() for host in known):
            return network, "every host has an interface in it"
        if all(_resolves_into(facts.addresses.get(name, (name,)), subnet) for name in remote):
            return network, "every host's name resolves into it"
    warnings.append(
        "no network is known to be common to all hosts: MPI chooses by itself. If the start "
        "hangs, name it: --set launch.subnet=10.0.0.0/24"
    )
    return None, ""


def plan_channel_address(facts: Facts, remote: Sequence[str], subnet: str | None) -> str:
    """Return the address that the launcher listens on for its ranks."""
    if not remote:
        return "127.0.0.1"
    network = ipaddress.ip_network(subnet) if subnet else None
    own = [
        ipaddress.ip_interface(address)
        for interface in facts.launcher.interfaces
        if not interface.is_virtual or network is not None
        for address in interface.addresses
    ]
    fitting = [address for address in own if network is None or address.ip in network]
    usable = [
        address for address in fitting if not address.is_link_local and not address.is_loopback
    ]
    return str(usable[0].ip) if usable else "127.0.0.1"


def _parse_network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as problem:
        raise PlanError(
            f"launch.subnet: no network, got '{text}'; expected a CIDR like 10.0.0.0/24 "
            f"({problem})."
        ) from None


def _check_subnet(network: Network, facts: Facts) -> str:
    own = [address for i in facts.launcher.interfaces for address in i.addresses]
    if not any(ipaddress.ip_interface(address).ip in network for address in own):
        known = ", ".join(dict.fromkeys(facts.launcher.networks())) or "none known"
        raise PlanError(
            f"launch.subnet: this machine has no address in it, got '{network}'; expected one "
            f"of {known}."
        )
    return str(network)


def _resolves_into(addresses: Sequence[str], network: Network) -> bool:
    return any(
        is_address(a) and ipaddress.ip_address(a.partition("%")[0]) in network for a in addresses
    )
