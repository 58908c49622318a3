"""Can ranks be started on other hosts?"""

from __future__ import annotations

from hpctrain.preflight.machine import Machine
from hpctrain.preflight.ssh_words import INSTALL_CLIENT
from hpctrain.preflight.verdict import PASS, WARN, Verdict


def check_ssh(machine: Machine) -> Verdict:
    """Look for an ssh client, which only launches on other hosts need."""
    ssh = machine.programs.get("ssh")
    if ssh is None:
        return Verdict("ssh", WARN, "none on PATH: ranks only on this machine", INSTALL_CLIENT)
    return Verdict("ssh", PASS, ssh)
