"""Which hosts see one folder? Each has left an empty file there; now all look, and take theirs.

Every file is there before the first host looks, and a host removes its own only after it has
looked: so of two that share a folder, at least the first to look sees the other's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from hpctrain.executor import Command, Executor, LocalExecutor, SshExecutor, run_on_all
from hpctrain.launch.ssh_config import host_alias

MARKER_PREFIX = ".hpctrain-preflight-"
LOOK_TIMEOUT_S = 20.0

# Making and removing a file here makes a network file system list the folder anew: its clients
# keep what they have listed for up to half a minute (nfs(5), acdirmax).
_SCRIPT = """\
cd "$1" || exit 1
: > "$2.look" && rm -f -- "$2.look"
ls -A | grep -F -- "$3"
rm -f -- "$2"
exit 0
"""


def new_word() -> str:
    """Return the beginning of this preflight's file names."""
    return f"{MARKER_PREFIX}{os.urandom(6).hex()}"


def find_markers(
    markers: Mapping[str, tuple[str, str]],
    local: frozenset[str],
    ssh_options: Sequence[str],
    executor: Executor | None = None,
) -> dict[str, list[str]]:
    """Return host → the hosts whose files it sees; and remove the files.

    Args:
        markers: host → (folder, its file there).
        local: hosts that are this machine.
    """
    here = executor or LocalExecutor()
    owners = {name: host for host, (_, name) in markers.items()}

    def look(host: str) -> list[str]:
        folder, name = markers[host]
        where: Executor = here
        if host not in local:
            where = SshExecutor(host_alias(host), tuple(ssh_options), here)
        word = name.rpartition("-")[0]
        command = Command(("sh", "-s", "--", folder, name, word))
        done = where.run(command, timeout_s=LOOK_TIMEOUT_S, stdin=_SCRIPT)
        return [owners[line] for line in done.stdout.splitlines() if line in owners]

    hosts = list(markers)
    return dict(zip(hosts, run_on_all(look, hosts), strict=True))


def group_by_sight(seen: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the groups of hosts that see one folder, the largest first. Pure.

    >>> group_by_sight({"a": ["a", "b"], "b": ["b"], "c": ["c"]})
    [['a', 'b'], ['c']]
    """
    groups: list[set[str]] = []
    for host, others in seen.items():
        joined = {host, *(other for other in others if other in seen)}
        for group in [group for group in groups if group & joined]:
            joined |= group
            groups.remove(group)
        groups.append(joined)
    order = list(seen)
    lists = [sorted(group, key=order.index) for group in groups]
    return sorted(lists, key=lambda group: (-len(group), order.index(group[0])))
