"""The lab: a cluster of nodes made of namespaces on this Linux machine. Here: the provider.

Each node has its own network, host name, processes, IPC, mounts, boot_id, /dev/shm and sshd, so
that MPI takes it for a machine of its own. `plan.py` says what is to be there, `build.py` makes
it, `find.py` asks the kernel what is there, `remove.py` takes it away by its name.
"""

from __future__ import annotations

import time
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
    from dataclasses import replace

    from hpctrain.clusters.cluster_dir import ClusterRecord
    from hpctrain.clusters.lab.build import LabBuilder, choosing_addresses
    from hpctrain.clusters.lab.faults import forget_faults
    from hpctrain.clusters.lab.measure import measure_lab
    from hpctrain.clusters.lab.options import options_as_json
    from hpctrain.clusters.lab.plan import plan_lab
    from hpctrain.clusters.lab.remove import remove_lab

    before = directory.read()
    with choosing_addresses():
        # Another lab may have taken the network since the plan was made.
        plan = plan_lab(plan.request, gather_facts(plan.request, directory))
        lab = plan.detail
        record = ClusterRecord(
            name=lab.name,
            provider="lab",
            created_s=before.created_s if before and not lab.makes_switch else time.time(),
            state="up",
            nodes=plan.nodes,
            reachable_from_here=True,
            hostfile_links=before.hostfile_links if before else (),
            provider_data={"subnet": lab.subnet, "options": options_as_json(lab.options)},
        )
        builder = LabBuilder(lab, directory)
        if before is None or lab.makes_switch:
            directory.write(replace(record, state="creating"))
        else:  # what is up stays up, whatever becomes of this change
            pending = [*lab.to_start, *lab.to_reshape]
            data = {**before.provider_data, "pending": pending}
            directory.write(replace(before, provider_data=data))
        if lab.to_clear:
            remove_lab(lab.name, plan.request.environ)
        if lab.makes_switch:
            builder.clear_files()
            builder.make_switch()
    builder.stop_nodes()
    builder.make_files()
    builder.start_nodes()
    builder.reshape_nodes()
    for node in (*lab.to_start, *lab.to_reshape):
        forget_faults(directory, node)
    directory.write(record)
    if lab.to_start or lab.to_reshape:
        for line in measure_lab(lab, console):
            console.say(line)
    return record


def status(directory: ClusterDirectory) -> ClusterStatus:
    """Look at the nodes, and at what a crash may have left of them."""
    from hpctrain.clusters.lab.status import lab_status

    return lab_status(directory)


def plan_down(directory: ClusterDirectory) -> DownPlan:
    """Find what is there of a lab, by its name."""
    from hpctrain.clusters.lab.find import find_nodes
    from hpctrain.clusters.lab.remove import find_leftovers
    from hpctrain.clusters.provider import DownPlan

    found = find_leftovers(directory.name)
    nodes = [f"{directory.name}-{node}" for node in find_nodes(directory.name)]
    lines = [f"{directory.name}: {', '.join(nodes) or 'no node'}, {len(found)} things in all"]
    lines += [f"  {each}" for each in found]
    lines += [f"  {directory.path}"] if directory.path.exists() else []
    return DownPlan(directory.name, tuple(lines))


def down(plan: DownPlan, directory: ClusterDirectory, console: Console) -> None:
    """Remove the lab with its directory.

    Raises:
        ClusterError: something is left; the directory stays.
    """
    import os

    from hpctrain.clusters.lab.facts import check_root
    from hpctrain.clusters.lab.remove import remove_lab
    from hpctrain.errors import ClusterError

    check_root()
    remove_lab(directory.name, os.environ)
    directory.remove()
    if directory.path.exists():
        raise ClusterError(f"{directory.path}: cannot be removed. Remove it by hand.")


def find_names() -> frozenset[str]:
    """Return the names of the labs of which the kernel knows anything."""
    from hpctrain.clusters.lab.find import find_labs

    return find_labs()
