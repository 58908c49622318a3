"""Is torch there, and does it fit the GPUs? Is apex, which is optional?"""

from __future__ import annotations

from hpctrain.preflight.machine import Machine
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

MISSING = "No module named"


def check_torch(machine: Machine) -> Verdict:
    """Say which torch there is, and whether it can use the GPUs that there are."""
    torch = machine.packages.get("torch", {"error": "not asked"})
    if "error" in torch:
        fix = "make setup, or: pip install 'hpctrain[train]'"
        return Verdict("torch", FAIL, str(torch["error"]), fix)
    build = f"CUDA {torch['cuda']}" if torch.get("cuda") else "CPU build"
    found = f"{torch['version']} ({build})"
    if machine.facts.gpus and not torch.get("cuda_devices"):
        fix = "pip install --force-reinstall 'torch===2.13.0'"
        return Verdict(
            "torch", WARN, f"{found}: it sees none of {len(machine.facts.gpus)} GPUs", fix
        )
    return Verdict("torch", PASS, found)


def check_apex(machine: Machine) -> Verdict:
    """Say whether NVIDIA's apex with its amp is there: an option, replaced by torch.amp."""
    apex = machine.packages.get("apex", {"error": "not asked"})
    if "error" not in apex:
        return Verdict("apex", PASS, "apex.amp is there")
    if MISSING in str(apex["error"]) and "'apex'" in str(apex["error"]):
        return Verdict("apex", SKIP, "not installed; optional, torch's own precisions replace it")
    found = f"apex is there without a usable amp: {apex['error']}"
    return Verdict("apex", SKIP, f"{found}; optional, torch's own precisions replace it")
