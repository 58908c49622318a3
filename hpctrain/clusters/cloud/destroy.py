"""Carry out `down` on a cloud: name what goes, destroy it, see that nothing is left."""

from __future__ import annotations

import os

from hpctrain.clusters.cloud.apply import ResourceLines, on_interrupt
from hpctrain.clusters.cloud.environ import terraform_environ
from hpctrain.clusters.cloud.leftovers import ask_what_is_left
from hpctrain.clusters.cloud.state import (
    find_folder,
    has_state,
    refuse_errored_state,
    state_count,
)
from hpctrain.clusters.cloud.terraform import TerraformAdapter, interrupts_ignored
from hpctrain.clusters.cluster_dir import ClusterDirectory
from hpctrain.clusters.provider import Console, DownPlan
from hpctrain.errors import EXIT_INTERRUPTED, ClusterError


def plan_cloud_down(directory: ClusterDirectory) -> DownPlan:
    """Find what is to be removed: everything in Terraform's state.

    Raises:
        ClusterError: the state cannot be read.
    """
    there = []
    if has_state(directory):
        refuse_errored_state(directory)
        adapter = _adapter(directory)
        if not (adapter.folder / ".terraform").exists():
            adapter.prepare()
        there = adapter.list_state()
    lines = [f"{directory.name}: {len(there)} resources at the cloud"]
    lines += [f"  {each.removeprefix('module.cluster.')}" for each in there]
    lines.append(f"  {directory.path}, with the cluster's keys")
    question = f"Remove all of {directory.name}? What is on the nodes' disks is lost."
    return DownPlan(directory.name, tuple(lines), tuple(there), question)


def carry_out_down(plan: DownPlan, directory: ClusterDirectory, console: Console) -> None:
    """Remove it, and the directory at last.

    Raises:
        ClusterError: something is left, or may be; says what, and the directory stays.
    """
    if has_state(directory):
        refuse_errored_state(directory)
        adapter = _adapter(directory, console)
        try:
            adapter.prepare()  # what links to a cache of providers that is gone is void
        except ClusterError as problem:  # a registry out of reach need not stop it
            console.warn(f"{problem.messages[0]}; going on with what is here")
        failed = adapter.tear_down(ResourceLines(console))
        with interrupts_ignored():
            left, _ = state_count(adapter)
        refuse_errored_state(directory)
        if failed or left is None or left or adapter.interrupts:
            raise _not_removed(directory.name, failed, left, stopped=adapter.interrupts > 0)
        check_nothing_is_left(adapter, directory, console)
    directory.remove()


def check_nothing_is_left(
    adapter: TerraformAdapter, directory: ClusterDirectory, console: Console
) -> None:
    """Ask the cloud itself: a state that was lost or replaced knows nothing of what runs.

    Raises:
        ClusterError: something of the cluster is there.
    """
    found, why_not = ask_what_is_left(adapter, directory.name)
    if why_not:
        console.warn(f"nothing is left in Terraform's state; the cloud was not asked: {why_not}")
    if found:
        raise ClusterError(
            f"{directory.name}: things of it are left that Terraform does not know, got "
            f"{', '.join(found)}; expected none. Remove them at the cloud's console, then again: "
            f"hpctrain cluster down --name {directory.name}"
        )


def _not_removed(
    name: str, failed: list[str], left: list[str] | None, *, stopped: bool
) -> ClusterError:
    what = f"{len(left)} resources are left: {', '.join(left)}" if left else "nothing is left"
    if left is None:
        what = "what is left is unknown, for the state cannot be read"
    how = "was stopped" if stopped else "failed"
    error = ClusterError(
        *failed, f"{name}: `down` {how}; {what}. Go on: hpctrain cluster down --name {name}"
    )
    if stopped:
        error.exit_code = EXIT_INTERRUPTED
    return error


def _adapter(directory: ClusterDirectory, console: Console | None = None) -> TerraformAdapter:
    return TerraformAdapter(
        find_folder(directory),
        terraform_environ(os.environ),
        (lambda count: on_interrupt(console, count)) if console else (lambda count: None),
    )
