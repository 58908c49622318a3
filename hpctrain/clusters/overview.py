"""Which clusters are there, how are they, and how does one get in?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hpctrain.clusters.cluster_dir import (
    ClusterDirectory,
    ClusterRecord,
    clusters_folder,
    find_cluster,
    list_clusters,
)
from hpctrain.clusters.provider import PROVIDERS, ClusterStatus, find_provider
from hpctrain.errors import ClusterError, ConfigError, did_you_mean
from hpctrain.executor import Command, render_command


def cluster_statuses(name: str | None, environ: Mapping[str, str]) -> list[ClusterStatus]:
    """Return how clusters are: one, or all that have a directory or that a provider knows.

    Raises:
        ConfigError: there is nothing of this name.
    """
    known = {provider: find_provider(provider).find_names() for provider in PROVIDERS}
    names = {cluster.name for cluster in list_clusters(environ)}.union(*known.values())
    if name is not None and name not in names:
        find_cluster(name, environ)
    found = []
    for each in sorted(names if name is None else {name}):
        directory = ClusterDirectory(each, clusters_folder(environ))
        try:
            record = directory.read()
            by_name = next((provider for provider in known if each in known[provider]), "lab")
            provider = find_provider(record.provider if record else by_name)
        except ClusterError as problem:
            found.append(ClusterStatus(each, "?", "unreadable", lines=problem.messages))
            continue
        found.append(provider.status(directory))
    return found


def read_cluster(
    name: str, environ: Mapping[str, str], where: str = "--name", *, whole: bool = False
) -> tuple[ClusterDirectory, ClusterRecord]:
    """Return a cluster whose nodes are known, with its directory.

    Args:
        whole: whether it must be up. Who logs in or fetches results needs nodes alone, and most
            of all while an `up` or `down` goes on, or has failed.

    Raises:
        ConfigError: there is none of this name.
        ClusterError: it has no nodes yet, or is not, or not any more, whole.
    """
    directory = find_cluster(name, environ, where)
    record = directory.read()
    if record is None or (whole and record.state != "up"):
        state = "half-made" if record is None else record.state
        raise ClusterError(
            f"{name}: it is not up, got state {state}; expected up. See: hpctrain cluster status "
            f"--name {name}"
        )
    if not whole and not (record.nodes and directory.ssh_config.exists()):
        raise ClusterError(
            f"{name}: none of its nodes is known yet, got state {record.state}; expected nodes "
            f"that can be reached. See: hpctrain cluster status --name {name}"
        )
    return directory, record


def find_cluster_hostfile(name: str, environ: Mapping[str, str]) -> Path:
    """Return the hostfile of a cluster that this machine can start ranks on.

    Raises:
        ConfigError: there is none of this name.
        ClusterError: it is not up, or this machine is outside its network.
    """
    directory, record = read_cluster(name, environ, "--cluster", whole=True)
    if not record.reachable_from_here:
        raise ClusterError(
            f"--cluster: this machine is outside the network of {name}; expected a cluster whose "
            f"nodes it reaches. Start the run on its head: hpctrain cluster ssh --name {name}"
        )
    return directory.hostfile


def plan_ssh(
    name: str, node: str | None, words: Sequence[str], environ: Mapping[str, str]
) -> Command:
    """Return the command that logs in to a node, or runs a command there.

    Args:
        node: its name, with or without the cluster's in front; None for the first one.

    Raises:
        ConfigError: no such cluster or node.
    """
    directory, record = read_cluster(name, environ)
    names = [each.name for each in record.nodes]
    chosen = names[0] if node is None else node
    if chosen not in names and f"{name}-{chosen}" in names:
        chosen = f"{name}-{chosen}"
    if chosen not in names:
        raise ConfigError(
            f"NODE: no such node of {name}, got '{node}'; expected one of {', '.join(names)}."
            f"{did_you_mean(str(node), names)}"
        )
    # As ssh has it, one word is a line for the shell there; several are a program's own words.
    line = (render_command(Command(tuple(words))) if len(words) > 1 else words[0],) if words else ()
    return Command(("ssh", "-F", str(directory.ssh_config), chosen, *line))
