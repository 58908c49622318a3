"""The lab: a cluster of nodes made of namespaces on this Linux machine. Here: the provider.

Each node has its own network, host name, processes, IPC, mounts, boot_id, /dev/shm and sshd, so
that MPI takes it for a machine of its own. `plan.py` says what is to be there, `build.py` makes
it, `find.py` asks the kernel what is there, `remove.py` takes it away by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a cable's process imports this package too, and is to start at once
    from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterRecord
    from hpctrain.clusters.provider import (
        ClusterPlan,
        ClusterRequest,
        ClusterStatus,
        Console,
        DownPlan,
    )


def gather_facts(request: ClusterRequest, directory: ClusterDirectory) -> Any:
    """Ask this machine what a plan must know.

    Raises:
        ClusterError: this machine can have no lab; with what works in its place.
    """
    from hpctrain.clusters.lab.facts import gather_lab_facts
    from hpctrain.executor import LocalExecutor

    return gather_lab_facts(directory, request.environ, LocalExecutor())


def plan_up(request: ClusterRequest, facts: Any) -> ClusterPlan:
    """Plan a lab, or the changes to one that is up; pure.

    Raises:
        ConfigError, ClusterError: as :func:`hpctrain.clusters.lab.plan.plan_lab`.
    """
    from hpctrain.clusters.lab.plan import plan_lab

    return plan_lab(request, facts)


def up(plan: ClusterPlan, directory: ClusterDirectory, console: Console) -> ClusterRecord:
    """Make the lab, or change it, and measure its links where they were given a shape.

    Raises:
        ClusterError: a step failed; what was made stays, for ``down`` or another ``up``.
    """
    from hpctrain.clusters.lab.make import make_lab
    from hpctrain.clusters.lab.owner import holding_name

    with holding_name(directory.name):
        return make_lab(plan, directory, console)


def status(directory: ClusterDirectory) -> ClusterStatus:
    """Look at the nodes, and at what a crash may have left of them."""
    from hpctrain.clusters.lab.status import lab_status

    return lab_status(directory)


def plan_down(directory: ClusterDirectory) -> DownPlan:
    """Find what is there of a lab, by its name.

    Raises:
        ClusterError: it is another's, or the directory is no lab's.
    """
    from hpctrain.clusters.lab.disks import describe_loss, find_disks
    from hpctrain.clusters.lab.find import find_nodes
    from hpctrain.clusters.lab.owner import refuse_cloud_files, refuse_others_lab
    from hpctrain.clusters.lab.remove import find_leftovers
    from hpctrain.clusters.provider import DownPlan

    refuse_cloud_files(directory)
    refuse_others_lab(directory)
    found = find_leftovers(directory.name)
    nodes = [f"{directory.name}-{node}" for node in find_nodes(directory.name)]
    lines = [f"{directory.name}: {', '.join(nodes) or 'no node'}, {len(found)} things in all"]
    lines += [f"  {each}" for each in found]
    lines += [f"  {directory.path}"] if directory.path.exists() else []
    disks = find_disks(directory)
    lines += [f"  {describe_loss(disks)}"] if disks else []
    question = f"Remove {describe_loss(disks)}?" if disks else ""
    return DownPlan(directory.name, tuple(lines), question=question)


def down(plan: DownPlan, directory: ClusterDirectory, console: Console) -> None:
    """Remove the lab with its directory.

    Raises:
        ClusterError: something is left, or is not ours; the directory stays.
    """
    import os

    from hpctrain.clusters.lab.facts import check_root
    from hpctrain.clusters.lab.owner import holding_name, refuse_cloud_files, refuse_others_lab
    from hpctrain.clusters.lab.remove import remove_lab
    from hpctrain.errors import ClusterError

    check_root()
    refuse_cloud_files(directory)
    with holding_name(directory.name):
        refuse_others_lab(directory)
        remove_lab(directory.name, os.environ)
    directory.remove()
    if directory.path.exists():
        raise ClusterError(f"{directory.path}: cannot be removed. Remove it by hand.")


def find_names() -> frozenset[str]:
    """Return the names of the labs of which the kernel knows anything."""
    from hpctrain.clusters.lab.find import find_labs

    return find_labs()
