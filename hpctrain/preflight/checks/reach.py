"""Could every host be asked, and if not, which step on the way to it failed?"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from hpctrain.launch.ssh_config import host_alias
from hpctrain.preflight.check import Check
from hpctrain.preflight.contact import Contact
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.ssh_words import Broken
from hpctrain.preflight.verdict import FAIL, PASS, WARN, Verdict

SLOW_LOGIN_S = 10.0
SHOWN_NOISE = 60
_QUIET_SHELL = "first in ~/.bashrc there: case $- in *i*) ;; *) return ;; esac"


def judge_reach(fleet: Fleet) -> Iterator[Verdict]:
    """Say of each host whether it answered, and if not, where the way to it ends."""
    contacts: Mapping[str, Contact] = fleet.facts.get("contacts", {})
    broken: Mapping[str, Broken] = fleet.facts.get("reach", {})
    for host in fleet.hosts:
        if host in broken:
            step, found, fix = broken[host]
            yield Verdict("reach", FAIL, f"{step}: {found}", fix, "", (host,))
        elif host in fleet.unreachable:  # this machine: of others it is known where the way ends
            fix = f"{sys.executable} -m hpctrain.probe"
            yield Verdict("reach", FAIL, fleet.unreachable[host], fix, "", (host,))
        elif host in fleet.local:
            yield Verdict("reach", PASS, "this machine", hosts=(host,))
        else:
            by_hand = fleet.facts.get("by_hand", {}).get(host, f"ssh {host_alias(host)}")
            yield from _judge_login(host, contacts.get(host, Contact()), by_hand)


def _judge_login(host: str, contact: Contact, by_hand: str) -> Iterator[Verdict]:
    if contact.noise:
        first = contact.noise.splitlines()[0][:SHOWN_NOISE]
        found = f"the login shell prints before any command, which breaks rsync and scp: {first!r}"
        yield Verdict("reach", WARN, found, _QUIET_SHELL, "a shell that is silent", (host,))
    if contact.login_s is not None and contact.login_s > SLOW_LOGIN_S:
        found = f"ssh, the login shell and starting Python took {contact.login_s:.0f} s"
        fix = (
            "look at its ~/.bashrc, DNS and file system (UseDNS no in sshd_config): "
            f"time {by_hand} true"
        )
        yield Verdict("reach", WARN, found, fix, f"under {SLOW_LOGIN_S:g} s", (host,))
    elif not contact.noise:
        yield Verdict("reach", PASS, "answers over ssh", hosts=(host,))


REACH = Check("reach", judge_reach, needs_hosts=True)
