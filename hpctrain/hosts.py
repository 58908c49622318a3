"""Which hosts, with how many slots: hostfiles and host lists as people and schedulers write them.

Source of the hostfile grammar: Open MPI's documentation, "Scheduling processes across hosts".
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpctrain.errors import HostfileError, did_you_mean, raise_all

LOCALHOST = "localhost"
MAX_HOSTS = 65536  # a slip like node[1-99999999] would otherwise fill the memory
KEY_SYNONYMS = {
    "slots": "slots",
    "max_slots": "max_slots",
    "max-slots": "max_slots",
    "user": "user",
    "username": "user",
    "port": "port",
}
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Host:
    """One machine that ranks may run on.

    `slots` is None where nobody said how many: the planner then counts GPUs, else cores.
    """

    name: str
    slots: int | None = None
    max_slots: int | None = None
    user: str | None = None
    port: int | None = None
    where: str = ""

    @property
    def is_loopback(self) -> bool:
        """Whether the name means this machine on any machine."""
        if self.name in (LOCALHOST, "localhost.localdomain"):
            return True
        try:
            return ipaddress.ip_address(self.name).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class HostList:
    """Hosts in the order of their first mention, each once, and what is odd about them."""

    hosts: tuple[Host, ...]
    warnings: tuple[str, ...] = ()


def parse_hostfile(text: str, source: str = "hostfile") -> HostList:
    """Parse an Open MPI hostfile.

    A line is ``[user@]host [slots=N] [max_slots=M] [user=U] [port=P]``; ``#`` starts a comment.
    A name may hold ranges, ``node[01-04]``; an IPv6 address may stand in brackets. A host that
    stands twice adds up; without ``slots=`` each of its lines then counts as one slot, which
    also makes this the parser of a PBS nodefile.

    >>> parse_hostfile("node[1-2] slots = 4  # rack 1").hosts[1].slots
    4

    Raises:
        HostfileError: with every wrong line.
    """
    errors: list[str] = []
    entries: list[Host] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = re.sub(r"\s*=\s*", "=", raw.split("#", 1)[0].strip().lstrip("\ufeff"))
        if line:
            entries += _parse_line(line, f"{source}:{number}", errors)
    if not entries and not errors:
        errors.append(f"{source}: no host in it; expected lines like 'node1 slots=4'.")
    return _merge(entries, errors)


def parse_host_list(text: str, source: str = "-H") -> HostList:
    """Parse ``a:2,b:2`` as mpirun's ``--host`` takes it.

    ``host``, ``host:slots``, ``user@host:slots``, ``node[1-4]:2`` and ``[::1]:2``; commas inside
    brackets belong to the range.

    >>> [(host.name, host.slots) for host in parse_host_list("a:2,n[1,3]").hosts]
    [('a', 2), ('n1', None), ('n3', None)]

    Raises:
        HostfileError: with every wrong entry.
    """
    errors: list[str] = []
    entries: list[Host] = []
    for item in re.split(r",(?![^\[]*\])", text):
        where = f"{source} {text}: '{item.strip()}'"
        if not item.strip() or len(item.split()) > 1:
            errors.append(f"{where}: no host; expected entries like node1 or node1:4.")
            continue
        name, slots = _split_slots(item.strip())
        entries += _parse_line(f"{name} slots={slots}" if slots else name, where, errors)
    return _merge(entries, errors)


def render_hostfile(hosts: Sequence[Host]) -> str:
    """Return the hosts as a hostfile that :func:`parse_hostfile` reads back."""
    lines = []
    for host in hosts:
        settings = [(key, getattr(host, key)) for key in ("slots", "max_slots", "user", "port")]
        words = [f"{key}={value}" for key, value in settings if value is not None]
        lines.append(" ".join([host.name, *words]))
    return "".join(f"{line}\n" for line in lines)


def _split_slots(item: str) -> tuple[str, str]:
    """Split ``host:slots``, leaving the colons of an IPv6 address alone."""
    bare = item.rpartition("@")[2]
    if bare.count(":") > 1 and "]" not in bare:
        return item, ""
    name, colon, slots = item.rpartition(":")
    return (name, slots) if colon and "]" not in slots else (item, "")


def _parse_line(line: str, where: str, errors: list[str]) -> list[Host]:
    word, *settings = line.split()
    user, at, name = word.rpartition("@")
    if at and not user:
        name = word
    found: dict[str, str] = {"user": user} if user else {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        field = KEY_SYNONYMS.get(key)
        if not equals or not value:
            errors.append(f"{where}: cannot be read, got '{setting}'; expected key=value.")
        elif field is None:
            hint = did_you_mean(key, KEY_SYNONYMS)
            known = "'slots', 'max_slots', 'user' or 'port'"
            errors.append(f"{where}: unknown key '{key}'; expected {known}.{hint}")
        elif field in found:
            errors.append(f"{where}: '{key}' is given twice, got '{found[field]}' and '{value}'.")
        else:
            found[field] = value
    numbers = {
        field: _positive(found[field], field, where, errors)
        for field in ("slots", "max_slots", "port")
        if field in found
    }
    slots, max_slots, port = (numbers.get(field) for field in ("slots", "max_slots", "port"))
    if slots and max_slots and max_slots < slots:
        errors.append(f"{where}: max_slots is below slots, got {max_slots}; expected ≥ {slots}.")
    if port and port > 65535:
        errors.append(f"{where}: 'port' is out of range, got {port}; expected 1 to 65535.")
    template = Host("", slots, max_slots, found.get("user"), port, where)
    return [replace(template, name=each) for each in _expand_name(name, where, errors)]


def _positive(value: str, field: str, where: str, errors: list[str]) -> int | None:
    if value.isascii() and value.isdigit() and int(value) > 0:
        return int(value)
    errors.append(f"{where}: '{field}' is no count, got '{value}'; expected a whole number ≥ 1.")
    return None


def _expand_name(name: str, where: str, errors: list[str]) -> list[str]:
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if not name or name.startswith("@"):
        errors.append(f"{where}: no host name, got '{name}'; expected [user@]host.")
        return []
    if ":" in bare:
        try:
            return [str(ipaddress.IPv6Address(bare))]
        except ValueError:
            errors.append(
                f"{where}: no IPv6 address, got '{name}'; expected one like fe80::1. "
                "In a hostfile slots are given as slots=N."
            )
            return []
    names = _expand_ranges(name, where, errors) if "[" in name or "]" in name else [name]
    wrong = [each for each in names if not _NAME.fullmatch(each)]
    if wrong:
        errors.append(
            f"{where}: no host name, got '{wrong[0]}'; expected letters, digits, '.', '-' and '_'."
        )
        return []
    return names


def _expand_ranges(name: str, where: str, errors: list[str]) -> list[str]:
    # Imported here: only ranges need it, and it reads configuration files when imported.
    from ClusterShell.NodeSet import NodeSet, NodeSetException

    if any(sign in name for sign in "@!^&*"):
        errors.append(f"{where}: cannot be read, got '{name}'; expected ranges like node[01-04].")
        return []
    # Counted first: expanding node[1-99999999] takes minutes.
    ranges = [(int(low), int(high)) for low, high in re.findall(r"(\d+)-(\d+)", name)]
    count = math.prod(max(1, high - low + 1) for low, high in ranges)
    if count > MAX_HOSTS:
        errors.append(f"{where}: {count} hosts in '{name}'; expected at most {MAX_HOSTS}.")
        return []
    try:
        return list(NodeSet(name, resolver=None))
    except NodeSetException as problem:
        errors.append(f"{where}: {problem}; expected ranges like node[01-04,07].")
        return []


def _merge(entries: Sequence[Host], errors: list[str]) -> HostList:
    """Add up the entries of each host, as Open MPI does, and raise what was found."""
    merged: dict[str, Host] = {}
    warnings: list[str] = []
    for entry in entries:
        first = merged.get(entry.name)
        if first is None:
            merged[entry.name] = entry
            continue
        for field in ("user", "port"):
            old, new = getattr(first, field), getattr(entry, field)
            if old and new and old != new:
                errors.append(
                    f"{entry.where}: {entry.name} has another {field} than at {first.where}, "
                    f"got '{new}'; expected '{old}'."
                )
        slots = (first.slots or 1) + (entry.slots or 1)
        if first.slots and entry.slots:
            warnings.append(
                f"{entry.where}: {entry.name} stands at {first.where} too: "
                f"their slots add up to {slots}."
            )
        limits = [each.max_slots for each in (first, entry) if each.max_slots is not None]
        merged[entry.name] = replace(
            first,
            slots=slots,
            max_slots=sum(limits) if len(limits) == 2 else None,
            user=first.user or entry.user,
            port=first.port or entry.port,
        )
    raise_all(HostfileError, errors)
    return HostList(tuple(merged.values()), tuple(warnings))
