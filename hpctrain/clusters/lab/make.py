"""One ``up`` of a lab from its beginning to its end: what is written down when, and in which order
its parts are made, so that another ``up`` or a ``down`` can go on from wherever this one ends."""

from __future__ import annotations

import time
from dataclasses import replace

from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterRecord
from hpctrain.clusters.lab.build import LabBuilder
from hpctrain.clusters.lab.disks import describe_loss
from hpctrain.clusters.lab.facts import gather_lab_facts
from hpctrain.clusters.lab.faults import forget_faults
from hpctrain.clusters.lab.measure import measure_lab
from hpctrain.clusters.lab.options import options_as_json
from hpctrain.clusters.lab.owner import choosing_addresses
from hpctrain.clusters.lab.plan import plan_lab
from hpctrain.clusters.lab.remove import remove_lab
from hpctrain.clusters.provider import ClusterPlan, Console
from hpctrain.errors import ClusterError
from hpctrain.executor import LocalExecutor


def make_lab(asked: ClusterPlan, directory: ClusterDirectory, console: Console) -> ClusterRecord:
    """Make a lab, or change it, with its directory locked and its name held.

    Raises:
        ClusterError: a step failed; what was made stays, for ``down`` or another ``up``.
    """
    before = directory.read()
    with choosing_addresses():
        # Another lab may have taken the network since the plan was made.
        facts = gather_lab_facts(directory, asked.request.environ, LocalExecutor())
        plan = plan_lab(asked.request, facts)
        if unasked := set(plan.detail.loses_disks) - set(asked.detail.loses_disks):
            raise ClusterError(
                f"{directory.name}: changed since it was planned, got {describe_loss(unasked)} to "
                "remove; expected what was asked about. Look again: hpctrain cluster plan"
            )
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
