"""Carry out `down` on a cloud: name what goes, destroy it, see that nothing is left."""

from __future__ import annotations

import os

from hpctrain.clusters.cloud.apply import ResourceLines, on_interrupt
from hpctrain.clusters.cloud.plan import FOLDER, has_state, state_count, terraform_environ
from hpctrain.clusters.cloud.terraform import TerraformAdapter, interrupts_ignored
from hpctrain.clusters.cluster_dir import ClusterDirectory
from hpctrain.clusters.provider import Console, DownPlan
from hpctrain.errors import EXIT_INTERRUPTED, ClusterError


def plan_cloud_down(directory: ClusterDirectory) -> DownPlan:
    """Find what is to be removed: everything in Terraform's state.

    Raises:
        ClusterError: the state cannot be read.
    """
    there = _adapter(directory).list_state() if has_state(directory) else []
    lines = [f"{directory.name}: {len(there)} resources at the cloud"]
    lines += [f"  {each.removeprefix('module.cluster.')}" for each in there]
    lines.append(f"  {directory.path}, with the cluster's keys")
    question = f"Remove all of {directory.name}? What is on the nodes' disks is lost."
    return DownPlan(directory.name, tuple(lines), tuple(there), question)


def carry_out_down(plan: DownPlan, directory: ClusterDirectory, console: Console) -> None:
    """Remove it, and the directory at last.

    Raises:
        ClusterError: something is left; says what, and the directory stays.
    """
    if has_state(directory):
        adapter = _adapter(directory, console)
        failed = adapter.tear_down(ResourceLines(console))
        with interrupts_ignored():
            left, _ = state_count(adapter)
        if failed or left or adapter.interrupts:
            raise _not_removed(directory.name, failed, left, stopped=adapter.interrupts > 0)
    directory.remove()


def _not_removed(name: str, failed: list[str], left: list[str], *, stopped: bool) -> ClusterError:
    what = f"{len(left)} resources are left: {', '.join(left)}" if left else "nothing is left"
    how = "was stopped" if stopped else "failed"
    error = ClusterError(
        *failed, f"{name}: `down` {how}; {what}. Go on: hpctrain cluster down --name {name}"
    )
    if stopped:
        error.exit_code = EXIT_INTERRUPTED
    return error


def _adapter(directory: ClusterDirectory, console: Console | None = None) -> TerraformAdapter:
    return TerraformAdapter(
        directory.path / FOLDER,
        terraform_environ(os.environ),
        (lambda count: on_interrupt(console, count)) if console else (lambda count: None),
    )
