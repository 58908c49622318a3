"""What the commands of ``hpctrain cluster`` share: options, what they come to, completion."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from hpctrain.clusters.provider import ClusterRequest


def complete_cluster_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from hpctrain.clusters.cluster_dir import list_clusters

    names = [cluster.name for cluster in list_clusters(os.environ)]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def complete_node(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from hpctrain.clusters.overview import read_cluster
    from hpctrain.errors import HpctrainError

    try:
        _, record = read_cluster(ctx.params.get("name") or "lab", os.environ)
    except HpctrainError:
        return []
    names = [node.name for node in record.nodes]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def complete_fault(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from hpctrain.clusters.lab.faults import FAULTS

    words = [word.partition("=")[0] + ("=" if "=" in word else "") for word in FAULTS]
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def name_option(default: str | None = "lab") -> Callable[[Any], Any]:
    """Return the option that names a cluster."""
    return click.option(
        "--name",
        default=default,
        show_default=default is not None,
        shell_complete=complete_cluster_name,
        help="The cluster's name." + ("" if default else " Default: the provider's."),
    )


yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def request_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that describe a cluster."""
    lab = "Lab: "
    options = [
        click.option("--provider", help="Where: lab, aws or gcp. Default: lab."),
        name_option(default=None),
        click.option("--nodes", type=click.IntRange(min=1), help="How many. Default: 2."),
        click.option(
            "--config", type=click.Path(path_type=Path), metavar="FILE.toml",
            help="provider, name, nodes, and options of the provider.",
        ),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE",
            help="One option of the provider, e.g. slots=4. Repeatable.",
        ),
        click.option(
            "--bandwidth", multiple=True, metavar="[NODE=]RATE",
            help=f"{lab}each way, of every node or of one: 1gbit, n2=50mbit. Repeatable.",
        ),
        click.option(
            "--latency", multiple=True, metavar="[NODE=]TIME",
            help=f"{lab}of what a node sends: 1ms, n2=10ms. Repeatable.",
        ),
        click.option(
            "--loss", multiple=True, metavar="[NODE=]PERCENT",
            help=f"{lab}of the packets a node sends: 0.1%, n2=1%. Repeatable.",
        ),
        click.option(
            "--private-disk/--shared-disk", default=None,
            help=f"{lab}no file system that all nodes share.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def request_from(
    provider: str | None,
    name: str | None,
    nodes: int | None,
    config: Path | None,
    overrides: tuple[str, ...],
    bandwidth: tuple[str, ...],
    latency: tuple[str, ...],
    loss: tuple[str, ...],
    private_disk: bool | None,
) -> ClusterRequest:
    """Return the request that the options of :func:`request_options` make."""
    from hpctrain.clusters.request import merge_options, read_request, split_node_values

    flags = merge_options(
        [
            split_node_values("bandwidth", bandwidth),
            split_node_values("latency", latency),
            split_node_values("loss", loss),
            {} if private_disk is None else {"private_disk": private_disk},
        ]
    )
    return read_request(
        provider=provider, name=name, nodes=nodes, config=config, overrides=overrides,
        flags=flags, environ=os.environ,
    )  # fmt: skip
