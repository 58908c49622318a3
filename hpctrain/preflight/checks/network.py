"""Is there a network that all hosts are in, whatever its interface is called on each?"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from hpctrain.facts import HostFacts, Interface
from hpctrain.launch.network import find_network_around
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.fleet import Fleet, differing, not_asked
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, WARN, Verdict

CODE = "network"


def _look(task: NodeTask) -> list[dict[str, Any]]:
    from hpctrain.probe import probe_interfaces

    return [asdict(interface) for interface in probe_interfaces()]


INTERFACES = Probe("interfaces", _look, 10.0)


def read_interfaces(value: Any) -> HostFacts:
    """Return what the probe answered, as facts of which only the network is known."""
    interfaces = tuple(Interface(each["name"], tuple(each["addresses"])) for each in value)
    return HostFacts("", cores=0, interfaces=interfaces)


def common_networks(hosts: Mapping[str, HostFacts]) -> list[str]:
    """Return the networks (CIDR) that every host has a real interface in.

    Bridges and tunnels (docker0, virbr0 …) have the same network everywhere and lead nowhere.
    """
    first, *others = hosts.values()
    return [
        network for network in dict.fromkeys(first.networks())
        if all(network in other.networks() for other in others)
    ]  # fmt: skip


def judge_network(fleet: Fleet) -> Iterator[Verdict]:
    """Hold every host to the network that was chosen; else say which they have in common."""
    for host, answer in fleet.answers.get(INTERFACES.name, {}).items():
        if answer.error:
            yield not_asked(CODE, host, answer.error)
    hosts = {h: read_interfaces(v) for h, v in fleet.answers_of(INTERFACES.name).items()}
    if not hosts:
        return
    subnet = next((fleet.tasks[host].subnet for host in hosts if fleet.tasks[host].subnet), None)
    if subnet is not None:
        yield from _judge_subnet(subnet, hosts)
    else:
        yield _judge_common(hosts)


def _judge_subnet(subnet: str, hosts: Mapping[str, HostFacts]) -> Iterator[Verdict]:
    others = [network for network in common_networks(hosts) if network != subnet]
    fix = f"--set launch.subnet={others[0]}" if others else "--exclude-file, or another subnet"
    names: dict[str, str] = {}
    for host, facts in hosts.items():
        name = facts.interface_in(subnet)
        if name is None:
            has = _describe(facts) or "no address"
            found = f"no interface in {subnet} (has {has})"
            yield Verdict(CODE, FAIL, found, fix, f"one in {subnet}", (host,))
        elif Interface(name, ()).is_virtual:
            found = f"{subnet} is {name}'s, which leads to no other host"
            yield Verdict(CODE, FAIL, found, fix, "a real interface", (host,))
        else:
            names[host] = name
    if names:
        yield Verdict(CODE, PASS, f"{subnet}: {_describe_names(names)}", hosts=tuple(names))


def _judge_common(hosts: Mapping[str, HostFacts]) -> Verdict:
    if common := common_networks(hosts):
        names = {host: facts.interface_in(common[0]) or "?" for host, facts in hosts.items()}
        rest = f"; also {', '.join(common[1:])}" if common[1:] else ""
        found = f"{common[0]}: {_describe_names(names)}{rest}"
        return Verdict(CODE, PASS, found, hosts=tuple(hosts))
    if around := find_network_around(list(hosts.values())):
        names = {host: facts.interface_in(around) or "?" for host, facts in hosts.items()}
        found = f"{around}: {_describe_names(names)}; each host has its address as a /32"
        return Verdict(CODE, PASS, found, hosts=tuple(hosts))
    seen = [f"{host} {_describe(facts) or 'none'}" for host, facts in list(hosts.items())[:4]]
    virtual = _virtual_in_common(hosts)
    not_taken = f"; {virtual} is on all of them and leads nowhere" if virtual else ""
    found = (
        f"no network is common to all hosts: {'; '.join(seen)}{not_taken}; MPI chooses by itself"
    )
    fix = "--set launch.subnet=CIDR, a network that holds an address of each host"
    return Verdict(CODE, WARN, found, fix, "", tuple(hosts))


def _virtual_in_common(hosts: Mapping[str, HostFacts]) -> str:
    found = [
        {
            f"{interface.name} ({ipaddress.ip_interface(address).network})"
            for interface in facts.interfaces
            if interface.is_virtual and interface.name != "lo"
            for address in interface.addresses
            if not ipaddress.ip_interface(address).is_link_local
        }
        for facts in hosts.values()
    ]
    return ", ".join(sorted(set.intersection(*found)))


def _describe(facts: HostFacts) -> str:
    return ", ".join(
        f"{interface.name} {address}"
        for interface in facts.interfaces
        if not interface.is_virtual
        for address in interface.addresses
        if not ipaddress.ip_interface(address).is_link_local
    )


def _describe_names(names: Mapping[str, str]) -> str:
    groups = differing(names)
    if len(groups) == 1:
        return next(iter(groups))
    return ", ".join(f"{name} on {hosts[0] if len(hosts) == 1 else f'{len(hosts)} hosts'}"
                     for name, hosts in groups.items())  # fmt: skip


NETWORK = Check(CODE, judge_network, (INTERFACES,), needs_hosts=True)
