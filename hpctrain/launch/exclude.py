"""Which hosts are left out of a run: those that a file names, such as preflight's hosts-failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hpctrain.errors import HostfileError, PlanError, did_you_mean
from hpctrain.hosts import HostList, parse_hostfile

OPTION = "--exclude-file"


def exclude_hosts(host_list: HostList | None, path: Path) -> HostList:
    """Return the hosts without those that a file names.

    Args:
        host_list: None where no hosts were named.
        path: a name a line, as in a hostfile; what else stands on a line is ignored. An empty
            file excludes none: every host has passed.

    Raises:
        HostfileError: the file cannot be read, or a line of it is no host.
        PlanError: there are no hosts, or none is left.
    """
    if host_list is None:
        raise PlanError(
            f"{OPTION}: names hosts to leave out, got {path}, but no hosts to run on; expected "
            "--hosts, --cluster or -H beside it."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is not UTF-8 text"
        raise HostfileError(f"{path}: cannot be read: {reason}. Check {OPTION}.") from problem
    return without(host_list, parse_excluded(text, str(path)), str(path))


def parse_excluded(text: str, source: str) -> tuple[str, ...]:
    """Return the names in a file of hosts to leave out.

    >>> parse_excluded("n1  # ECC\\n\\nn[3-4] slots=2\\nn1\\n", "bad")
    ('n1', 'n3', 'n4')
    >>> parse_excluded("# none\\n", "bad")
    ()

    Raises:
        HostfileError: with every wrong line.
    """
    if not any(line.split("#", 1)[0].strip() for line in text.splitlines()):
        return ()
    return tuple(host.name for host in parse_hostfile(text, source).hosts)


def without(host_list: HostList, excluded: Sequence[str], source: str) -> HostList:
    """Return the hosts that are not excluded, with a warning for each name that is no host's.

    Raises:
        PlanError: none is left.
    """
    names = [host.name for host in host_list.hosts]
    left = tuple(host for host in host_list.hosts if host.name not in set(excluded))
    if not left:
        raise PlanError(
            f"{OPTION}: leaves no host, got all {len(names)} of them in {source}; expected one "
            "that is not there. See why they failed: hpctrain preflight"
        )
    unknown = [name for name in excluded if name not in set(names)]
    warnings = [
        f"{source}: {name} is none of the run's hosts.{did_you_mean(name, names)}"
        for name in unknown
    ]
    return replace(host_list, hosts=left, warnings=(*host_list.warnings, *warnings))
