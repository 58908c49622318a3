"""Are there files that change NCCL silently?"""

from __future__ import annotations

from hpctrain.preflight.machine import Machine
from hpctrain.preflight.verdict import PASS, WARN, Verdict


def check_nccl_config(machine: Machine) -> Verdict:
    """Report NCCL's own configuration files: nothing in a run's plan shows what they set."""
    files = ", ".join(machine.nccl_config_files)
    if files:
        return Verdict(
            "nccl-config", WARN, f"{files} set NCCL variables silently", "hpctrain env explain"
        )
    return Verdict("nccl-config", PASS, "no nccl.conf")
