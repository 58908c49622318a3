"""Is there one NCCL in a rank's process, and would another linker path bring a second?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpctrain.preflight.check import Check
from hpctrain.preflight.checks.same_software import nccl_versions
from hpctrain.preflight.fleet import Fleet, on_each_host
from hpctrain.preflight.software import SOFTWARE
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE = "nccl-library"
_FIX = "hpctrain install-horovod builds against torch's own NCCL; unset LD_LIBRARY_PATH"


def judge_nccl_library(machine: Mapping[str, Any], files: Mapping[str, str]) -> Verdict:
    """Judge the NCCLs of one host.

    Args:
        machine: what the probe of machine-wide facts answered.
        files: NCCL libraries where the linker looks, path → version.
    """
    nccl = machine["packages"].get("nccl", {"error": "not asked"})
    if "error" in nccl:
        return Verdict(CODE, SKIP, f"torch cannot be imported: {nccl['error']}")
    versions = nccl_versions(machine["packages"])
    loaded = ", ".join(f"{path} ({version})" for path, version in nccl["loaded"].items())
    if len(versions) > 1:
        inside = not machine["packages"]["torch"].get("nccl_libraries") and nccl["torch"]
        own = f", and {inside} inside torch" if inside else ""
        found = f"{len(versions)} versions of NCCL in one process: {loaded}{own}"
        return Verdict(CODE, FAIL, found, _FIX, "one version")
    others = [f"{path} ({v or '?'})" for path, v in files.items() if v not in versions]
    if not versions:
        return Verdict(CODE, SKIP, "torch here has no NCCL (a CPU build)")
    if others:
        found = f"{versions[0]} is loaded; programs linked to NCCL may find {', '.join(others)}"
        return Verdict(CODE, WARN, found, "unset LD_LIBRARY_PATH, or remove the other one")
    return Verdict(CODE, PASS, f"{versions[0]}: {loaded or 'inside torch'}")


def make_check(machine_probe: Any) -> Check:
    """Return the check.

    Args:
        machine_probe: the probe of machine-wide facts.
    """

    def judge(fleet: Fleet) -> Any:
        files = fleet.answers_of(SOFTWARE.name)

        def of_host(task: NodeTask, value: Any) -> Verdict:
            return judge_nccl_library(value, files.get(task.host, {}).get("nccl_files", {}))

        yield from on_each_host(CODE, machine_probe.name, of_host)(fleet)

    return Check(CODE, judge, (machine_probe, SOFTWARE))
