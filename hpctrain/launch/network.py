"""Which network do the ranks talk over, and where does the launcher listen? Pure functions."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from hpctrain.errors import PlanError
from hpctrain.facts import Facts, HostFacts, is_address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
WIDEST_PREFIX = 8  # of private networks: 10.0.0.0/8


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
    if around := _find_network_around(facts, remote):
        return around, "the smallest that holds every host: each has its address as a /32"
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


def _find_network_around(facts: Facts, remote: Sequence[str]) -> str | None:
    """Return the network of hosts that do not know it, because each has its address as a /32.

    So it is on Google Cloud, whose DHCP gives guests the mask 255.255.255.255.
    """
    hosts = [facts.hosts.get(name) for name in remote]
    if all(hosts):
        known = find_network_around([facts.launcher, *(host for host in hosts if host)])
        if known is not None:
            return known
    resolved = [address for name in remote for address in facts.addresses.get(name, (name,))]
    for addresses in facts.launcher.single_addresses().values():
        if all(is_address(address) for address in resolved):
            network = smallest_network([*addresses, *resolved])
            if network is not None:
                return network
    return None


def find_network_around(hosts: Sequence[HostFacts]) -> str | None:
    """Return the smallest network of the first interface that has a /32 on every host; None for
    interfaces that have different names, or addresses too far apart."""
    singles = [host.single_addresses() for host in hosts]
    for name in singles[0]:
        if all(name in each for each in singles):
            network = smallest_network([address for each in singles for address in each[name]])
            if network is not None:
                return network
    return None


def smallest_network(addresses: Sequence[str]) -> str | None:
    """Return the smallest private network (CIDR) that holds all of some IPv4 addresses, if any.

    >>> smallest_network(["10.128.0.11", "10.128.0.14"]), smallest_network(["10.0.0.1", "8.8.8.8"])
    ('10.128.0.8/29', None)
    """
    parsed = [ipaddress.ip_address(address) for address in addresses]
    numbers = [int(address) for address in parsed if address.version == 4]
    if len(numbers) < len(parsed) or not numbers:
        return None
    differing_bits = (min(numbers) ^ max(numbers)).bit_length()
    network = ipaddress.ip_network((min(numbers), 32 - differing_bits), strict=False)
    return str(network) if network.prefixlen >= WIDEST_PREFIX and network.is_private else None


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
