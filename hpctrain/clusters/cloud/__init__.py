"""Clusters on AWS and GCP, made by Terraform. Here: the provider, the same for both clouds.

`settings.py` says what is asked for, `root.py` renders it for Terraform, `terraform.py` drives
Terraform, `plan.py`, `apply.py` and `destroy.py` are the three things that people do. `state.py`
guards what Terraform knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterRecord
    from hpctrain.clusters.provider import (
        ClusterPlan,
        ClusterRequest,
        ClusterStatus,
        Console,
        DownPlan,
    )
    from hpctrain.executor import Executor

CLOUDS = ("aws", "gcp")


def ssh_executor() -> Executor:
    """Return what runs ssh and rsync to nodes: the one seam at which tests put a fake."""
    from hpctrain.executor import LocalExecutor

    return LocalExecutor()


def gather_facts(request: ClusterRequest, directory: ClusterDirectory) -> Any:
    """Let Terraform plan.

    Raises:
        ConfigError, ClusterError: as :func:`hpctrain.clusters.cloud.plan.gather_cloud_facts`.
    """
    from hpctrain.clusters.cloud.plan import gather_cloud_facts

    _need_python_terraform()
    return gather_cloud_facts(request, directory)


def plan_up(request: ClusterRequest, facts: Any) -> ClusterPlan:
    """Say what Terraform's plan means; pure."""
    from hpctrain.clusters.cloud.plan import plan_cloud

    return plan_cloud(request, facts)


def up(plan: ClusterPlan, directory: ClusterDirectory, console: Console) -> ClusterRecord:
    """Apply the plan, wait for the nodes, set them up.

    Raises:
        ClusterError: it stopped half-way; says what exists, what it costs and how to go on.
    """
    from hpctrain.clusters.cloud.apply import carry_out

    return carry_out(plan, directory, console, ssh_executor())


def status(directory: ClusterDirectory) -> ClusterStatus:
    """Ask every node over ssh; the cloud itself is not asked."""
    from hpctrain.clusters.cloud.health import cloud_status

    return cloud_status(directory, ssh_executor())


def plan_down(directory: ClusterDirectory) -> DownPlan:
    """Find what is in Terraform's state.

    Raises:
        ClusterError: it cannot be read.
    """
    from hpctrain.clusters.cloud.destroy import plan_cloud_down

    _need_python_terraform()
    return plan_cloud_down(directory)


def down(plan: DownPlan, directory: ClusterDirectory, console: Console) -> None:
    """Destroy everything, and see that nothing is left.

    Raises:
        ClusterError: something is left; the directory stays.
    """
    from hpctrain.clusters.cloud.destroy import carry_out_down

    carry_out_down(plan, directory, console)


def find_names() -> frozenset[str]:
    """Return the names of the cloud clusters that have a directory; no cloud is asked."""
    import os

    from hpctrain.clusters.cluster_dir import list_clusters
    from hpctrain.errors import ClusterError

    names = set()
    for directory in list_clusters(os.environ):
        try:
            record = directory.read()
        except ClusterError:
            continue
        if record is not None and record.provider in CLOUDS:
            names.add(directory.name)
    return frozenset(names)


def _need_python_terraform() -> None:
    from importlib.util import find_spec

    from hpctrain.errors import ClusterError

    if find_spec("python_terraform") is None:
        raise ClusterError(
            "python-terraform: not installed; expected 0.10.1. "
            "Install it: pip install 'hpctrain[terraform]'"
        )
