"""How is a cloud cluster? Its nodes are asked over ssh; what is known of them is on file."""

from __future__ import annotations

from hpctrain.clusters.cloud.access import NodeAccess
from hpctrain.clusters.cloud.boot_wait import look_at_node
from hpctrain.clusters.cloud.plan import idle_words
from hpctrain.clusters.cloud.prices import estimate_price, read_prices
from hpctrain.clusters.cloud.settings import parse_settings
from hpctrain.clusters.cluster_dir import ClusterDirectory
from hpctrain.clusters.provider import ClusterStatus, NodeStatus
from hpctrain.errors import ConfigError
from hpctrain.executor import Executor, run_on_all


def cloud_status(directory: ClusterDirectory, executor: Executor) -> ClusterStatus:
    """Return what the nodes say."""
    record = directory.read()
    if record is None:
        return ClusterStatus(directory.name, "?", "half-made")
    access = NodeAccess(directory.ssh_config, executor)
    asked = record.nodes if directory.ssh_config.exists() else ()
    found = run_on_all(lambda node: look_at_node(access, node.name), list(asked))
    nodes = tuple(
        NodeStatus(
            node.name, node.address, node.slots, "up" if now.state == "ready" else now.state,
            now.detail,
        )
        for node, now in zip(asked, found, strict=True)
    )  # fmt: skip
    state = record.state
    if directory.is_locked():
        state = {"up": "creating"}.get(state, state)
    elif state == "up" and any(node.state != "up" for node in nodes):
        state = "degraded"
    elif state != "up":
        state = "half-made"
    again = f"hpctrain cluster up --provider {record.provider} --name {record.name}"
    lines = [*_cost_lines(record.provider, record.provider_data)]
    if record.provider_data.get("pending") and not directory.is_locked():
        lines.append(f"the last `up` has not come to its end; go on: {again}")
    if state in ("degraded", "half-made"):
        lines.append(f"nodes that have turned themselves off are started by: {again}")
    return ClusterStatus(record.name, record.provider, state, nodes, (), tuple(lines))


def _cost_lines(provider: str, data: object) -> list[str]:
    assert isinstance(data, dict)
    try:
        settings = parse_settings(provider, data.get("options", {}), data.get("nodes"))
        price = estimate_price(read_prices(), provider, settings, nodes=settings.nodes)
    except ConfigError:
        return []
    return [f"while they run: {price.words}", idle_words(settings)]
