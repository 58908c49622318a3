"""Make, change and remove a cluster of any provider: what is the same for all of them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hpctrain.clusters.cluster_dir import (
    ClusterDirectory,
    ClusterRecord,
    clusters_folder,
    find_cluster,
)
from hpctrain.clusters.hostfile_link import link_hostfile, unlink_hostfile
from hpctrain.clusters.provider import (
    PROVIDERS,
    ClusterPlan,
    ClusterRequest,
    Console,
    DownPlan,
    Provider,
    find_provider,
)
from hpctrain.clusters.unfetched import refuse_unfetched
from hpctrain.errors import ClusterError, ConfigError


def plan_cluster(request: ClusterRequest) -> tuple[ClusterDirectory, ClusterPlan]:
    """Return where a cluster is kept, and what `up` would do.

    Raises:
        ConfigError: the request is wrong, or the name is another provider's.
        ClusterError: clusters of this kind cannot be made here.
    """
    directory = ClusterDirectory(request.name, clusters_folder(request.environ))
    record = directory.read()
    if record is not None and record.provider != request.provider:
        raise ConfigError(
            f"--name: {request.name} is a cluster of {record.provider}, got --provider "
            f"{request.provider}; expected another name, or --provider {record.provider}."
        )
    provider = find_provider(request.provider)
    return directory, provider.plan_up(request, provider.gather_facts(request, directory))


def make_cluster(
    plan: ClusterPlan, directory: ClusterDirectory, console: Console, folder: Path
) -> ClusterRecord:
    """Carry a plan out, and let ``hostfile`` in `folder` point to the cluster's.

    Raises:
        ClusterError: another process is changing the cluster, or a step failed.
    """
    with directory.locked():
        record = find_provider(plan.request.provider).up(plan, directory, console)
        link, warning = link_hostfile(directory.hostfile, folder)
        if warning:
            console.warn(warning)
        if link is not None and str(link) not in record.hostfile_links:
            record = replace(record, hostfile_links=(*record.hostfile_links, str(link)))
            directory.write(record)
    return record


def plan_removal(
    name: str, environ: Mapping[str, str]
) -> tuple[Provider, ClusterDirectory, DownPlan]:
    """Return who removes a cluster, where it is kept, and what goes.

    Raises:
        ConfigError: there is nothing of this name.
        ClusterError: nobody knows whose it is, or it is another's.
    """
    directory = ClusterDirectory(name, clusters_folder(environ))
    provider = _provider_of(directory, environ)
    return provider, directory, provider.plan_down(directory)


def remove_cluster(
    provider: Provider,
    plan: DownPlan,
    directory: ClusterDirectory,
    console: Console,
    *,
    discard_results: bool = False,
) -> None:
    """Remove a cluster, and the links to its hostfile.

    Raises:
        ClusterError: another process is changing the cluster, a run was started there since it
            was looked at, or something is left.
    """
    with directory.locked():
        try:
            record = directory.read()
        except ClusterError:
            record = None
        if record is not None:
            directory.write(replace(record, state="destroying"))
        if not discard_results:
            try:  # after the mark: a run that starts now sees that, or is seen here
                refuse_unfetched(directory)
            except ClusterError:
                if record is not None:
                    directory.write(record)
                raise
        with console.working(f"removing {directory.name}"):
            provider.down(plan, directory, console)
        links = record.hostfile_links if record else ()
        unlink_hostfile(directory.hostfile, [*links, Path.cwd() / directory.hostfile.name])


def _provider_of(directory: ClusterDirectory, environ: Mapping[str, str]) -> Provider:
    """Return whose a cluster is: by its record, else by who knows its name.

    Nobody is guessed: the wrong one would remove what another finds its machines by.
    """
    damage = ""
    try:
        record = directory.read()
    except ClusterError as problem:
        record, damage = None, problem.messages[0]
    if record is not None:
        return find_provider(record.provider)
    for name in PROVIDERS:
        provider = find_provider(name)
        if directory.name in provider.find_names():
            return provider
    find_cluster(directory.name, environ)
    if damage or not directory.is_bare():
        damage = damage or f"{directory.path}: it has no record (cluster.json)."
        raise ClusterError(
            f"{damage} Nothing was removed: "
            "it may hold what a cloud's machines are found by. If nothing of it is needed any "
            f"more, remove it by hand: rm -r {shlex.quote(str(directory.path))}"
        )
    return find_provider("lab")  # `up` ended before it wrote anything: any provider would do
