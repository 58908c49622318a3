"""Do the hosts' clocks agree with this machine's?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hpctrain.preflight.check import Check
from hpctrain.preflight.checks.way_back import LOOK_BACK
from hpctrain.preflight.contact import Contact
from hpctrain.preflight.fleet import Fleet, not_asked
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE = "clock"
WARN_S, FAIL_S = 1.0, 60.0
SHOWN_S = 0.1  # closer than this is said in one line for all hosts
_FIX = "on that host, with chronyd or systemd-timesyncd: timedatectl set-ntp true; timedatectl"


def judge_clock(fleet: Fleet) -> Iterator[Verdict]:
    """Say of each remote host how far its clock is from this machine's.

    Only what is beyond the measurement's own error counts.
    """
    contacts: Mapping[str, Contact] = fleet.facts.get("contacts", {})
    for host, answer in fleet.answers.get(LOOK_BACK.name, {}).items():
        if host in fleet.local:
            continue
        if answer.error:
            yield not_asked(CODE, host, answer.error)
            continue
        measured = measure_clock(answer.value, contacts.get(host))
        if measured is None:
            yield Verdict(CODE, SKIP, "nothing to compare it with", hosts=(host,))
        else:
            yield _judge(host, *measured)


def measure_clock(value: Mapping[str, Any], contact: Contact | None) -> tuple[float, float] | None:
    """Return how far a host's clock is ahead of this machine's, and the error of that (s).

    Where the host reached this machine, from that exchange; else from when it was asked and when
    its answer came, between which it looked at its clock.

    >>> contact = Contact(began_s=100.0, ended_s=104.0)
    >>> measure_clock({"clock_s": 202.5}, contact)
    (100.5, 2.0)
    """
    if "ahead_s" in value:
        return value["ahead_s"], value["error_s"]
    if contact is None or not contact.ended_s:
        return None
    middle_s = (contact.began_s + contact.ended_s) / 2
    return value["clock_s"] - middle_s, (contact.ended_s - contact.began_s) / 2


def _judge(host: str, ahead_s: float, error_s: float) -> Verdict:
    surely_s = max(0.0, abs(ahead_s) - error_s)
    if surely_s <= WARN_S:
        close = abs(ahead_s) + error_s <= SHOWN_S
        said = f"within {SHOWN_S:g} s" if close else f"within {abs(ahead_s) + error_s:.1f} s"
        return Verdict(CODE, PASS, f"{said} of this machine's", hosts=(host,))
    direction = "ahead of" if ahead_s > 0 else "behind"
    found = f"{abs(ahead_s):.1f} s {direction} this machine's (± {error_s:.2g} s)"
    status = FAIL if surely_s > FAIL_S else WARN
    return Verdict(CODE, status, found, _FIX, f"within {WARN_S:g} s", (host,))


CLOCK = Check(CODE, judge_clock, (LOOK_BACK,), needs_hosts=True)
