"""Could every host be asked?"""

from __future__ import annotations

from collections.abc import Iterator

from hpctrain.launch.ssh_config import host_alias
from hpctrain.preflight.check import Check
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.verdict import FAIL, PASS, Verdict


def judge_reach(fleet: Fleet) -> Iterator[Verdict]:
    """Say of each host whether it answered, and if not, why."""
    options = " ".join(fleet.facts.get("ssh_options", ()))
    for host in fleet.hosts:
        if host in fleet.unreachable:
            by_hand = f"ssh {options} {host_alias(host)} true"
            yield Verdict("reach", FAIL, fleet.unreachable[host], by_hand, "", (host,))
        elif host in fleet.local:
            yield Verdict("reach", PASS, "this machine", hosts=(host,))
        else:
            yield Verdict("reach", PASS, "answers over ssh", hosts=(host,))


REACH = Check("reach", judge_reach, needs_hosts=True)
