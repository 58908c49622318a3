"""A package that the run in question does not use fails no host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, SKIP, WARN, Verdict

# Package → whether hpctrain's own trainer, with a configuration, needs it.
USED: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "torch": lambda config: True,
    "horovod": lambda config: bool(config["comm"]["backend"] == "horovod"),
    "mpi4py": lambda config: False,
}


def weigh(verdict: Verdict, task: NodeTask, *, is_missing: bool) -> Verdict:
    """Return a failure of a package as what it is for the run; without a run it stays one.

    Args:
        verdict: on the package that its code names.
        is_missing: whether it cannot be imported; else it can, and does not fit the machine.
    """
    if verdict.status != FAIL or not (task.config or task.program):
        return verdict
    if task.config and USED[verdict.code](task.config):
        return verdict
    if task.config:
        found = f"{verdict.found}; this training does not use it"
        return replace(verdict, status=WARN, found=found)
    if is_missing:
        return replace(verdict, status=SKIP, found=f"{verdict.found}; 'imports' says if it is used")
    return replace(verdict, status=WARN, found=f"{verdict.found}, if the program uses it")
