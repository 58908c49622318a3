"""Carry out `up` on a cloud: apply the plan that was shown, wait for the nodes, set them up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpctrain.clusters.cloud.access import NodeAccess, forget_hosts
from hpctrain.clusters.cloud.boot_wait import wait_for_nodes
from hpctrain.clusters.cloud.environ import terraform_environ
from hpctrain.clusters.cloud.events import Message, Progress, fold_message, short_address
from hpctrain.clusters.cloud.node_setup import NodeSetup
from hpctrain.clusters.cloud.plan import (
    PLAN_FILE,
    CloudFacts,
    idle_words,
    instance_ids,
    new_record,
    nodes_from_outputs,
)
from hpctrain.clusters.cloud.prices import estimate_price, read_prices
from hpctrain.clusters.cloud.state import (
    adopt_scratch,
    fingerprint,
    is_node,
    refuse_errored_state,
    state_count,
)
from hpctrain.clusters.cloud.terraform import TerraformAdapter, interrupts_ignored
from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterNode, ClusterRecord
from hpctrain.clusters.provider import ClusterPlan, Console
from hpctrain.errors import EXIT_INTERRUPTED, ClusterError
from hpctrain.executor import Executor

PENDING = "pending"  # in a record: an `up` of a cluster that was up has not come to its end
_SHOWN = ("created", "changed", "destroyed", "failed")


class ResourceLines:
    """Says of each resource when it is begun, done or failed, and how long it took."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress()

    def __call__(self, message: Message) -> None:
        before, self.progress = self.progress, fold_message(self.progress, message)
        for address, now in self.progress.resources.items():
            then = before.resources.get(address)
            if (then is None or then.state != now.state) and now.state != "planned":
                took = f"  {now.seconds:.0f} s" if now.state in _SHOWN else ""
                self.console.say(f"  {now.state:<10} {short_address(address)}{took}")


def carry_out(
    plan: ClusterPlan, directory: ClusterDirectory, console: Console, executor: Executor
) -> ClusterRecord:
    """Make the cluster, or change it; the directory is locked.

    Args:
        executor: runs ssh and rsync; Terraform has its own way.

    Raises:
        ClusterError: it stopped half-way; says what exists, what it costs and how to go on.
    """
    facts: CloudFacts = plan.detail
    refuse_errored_state(directory)
    if fingerprint(directory) != facts.seen:
        raise ClusterError(
            f"{directory.name}: another hpctrain has made, changed or removed this cluster since "
            "the plan was made; expected it as it was. Nothing was touched. Plan again: the same "
            "command once more"
        )
    before = directory.read()
    record = begin_record(new_record(plan.request, facts, "creating"), before)
    directory.write(record)
    folder = adopt_scratch(facts.scratch, directory)
    adapter = TerraformAdapter(
        folder, terraform_environ(plan.request.environ), lambda count: on_interrupt(console, count)
    )
    try:
        if facts.changes:
            failed = adapter.carry_out(PLAN_FILE, ResourceLines(console))
            if failed or adapter.interrupts:
                raise ClusterError(*failed)
        outputs = check_outputs(adapter.read_outputs(), directory.name)
        ids = instance_ids(outputs)
        nodes = nodes_from_outputs(outputs)
        _forget_changed_nodes(directory, before, nodes, ids)
        record = replace(
            record, nodes=nodes, provider_data={**record.provider_data, "instances": ids}
        )
        directory.write(record)
        directory.write_text("ssh_config", outputs["ssh_config"])
        access = NodeAccess(directory.ssh_config, executor)
        console.say(f"waiting for {len(nodes)} nodes, at most {facts.settings.boot_timeout_s:g} s")
        wait_for_nodes(
            access, [node.name for node in nodes], facts.settings.boot_timeout_s, console
        )
        setup = NodeSetup(access, nodes, console)
        setup.exchange_keys(directory.path)
        if facts.settings.install:
            setup.install()
        setup.check()
    except (ClusterError, KeyboardInterrupt) as problem:
        stopped = adapter.interrupts > 0 or isinstance(problem, KeyboardInterrupt)
        messages = problem.messages if isinstance(problem, ClusterError) else ()
        with interrupts_ignored():
            error = half_way(plan, facts, adapter, messages, stopped=stopped)
        raise error from problem
    directory.write_text("hostfile", outputs["hostfile"])
    done = {key: value for key, value in record.provider_data.items() if key != PENDING}
    record = replace(record, state="up", provider_data=done)
    directory.write(record)
    console.say(f"{record.name}: {idle_words(facts.settings)}")
    return record


def begin_record(record: ClusterRecord, before: ClusterRecord | None) -> ClusterRecord:
    """Return the record while `up` works: of a cluster that was up, its nodes stay in use."""
    if before is None:
        return record
    state, pending = ("up", {PENDING: True}) if before.state == "up" else ("creating", {})
    instances = before.provider_data.get("instances", {})
    return replace(
        record, created_s=before.created_s, hostfile_links=before.hostfile_links,
        nodes=before.nodes, state=state,
        provider_data={**record.provider_data, "instances": instances, **pending},
    )  # fmt: skip


def check_outputs(outputs: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return Terraform's outputs.

    Raises:
        ClusterError: some are missing, as after an apply that was interrupted.
    """
    missing = [each for each in ("nodes", "ssh_config", "hostfile") if each not in outputs]
    if missing:
        raise ClusterError(
            f"{name}: Terraform does not say how the nodes are reached, got no "
            f"{', '.join(missing)}; expected all outputs. Try again: the same command once more"
        )
    return outputs


def on_interrupt(console: Console, count: int) -> None:
    """Say what a Ctrl-C does."""
    if count == 1:
        console.warn("stopping: Terraform finishes what it has begun, and writes its state")
    else:
        console.warn("Terraform is still finishing: ending it now would lose track of resources")


def half_way(
    plan: ClusterPlan,
    facts: CloudFacts,
    adapter: TerraformAdapter,
    messages: Sequence[str],
    *,
    stopped: bool,
) -> ClusterError:
    """Return the error of an `up` that did not end: what is there, what it costs, what to do."""
    there, count = state_count(adapter)
    name, provider = plan.request.name, plan.request.provider
    prices = read_prices(Path(facts.settings.prices) if facts.settings.prices else None)
    nodes = facts.settings.nodes if count is None else count
    price = estimate_price(prices, provider, facts.settings, nodes=nodes)
    error = ClusterError(*messages, half_way_words(name, provider, there, price.words, stopped))
    if stopped:
        error.exit_code = EXIT_INTERRUPTED
    return error


def half_way_words(
    name: str, provider: str, there: Sequence[str] | None, price: str, stopped: bool
) -> str:
    """Return what exists, what it costs an hour, and how to go on or destroy; pure.

    Args:
        there: what is in Terraform's state; None where that could not be read.
    """
    how = "was stopped" if stopped else "stopped"
    if there is not None and not there:
        return (
            f"{name}: `up` {how} half-way; nothing exists, and nothing costs anything. "
            f"Try again: hpctrain cluster up --provider {provider} --name {name}"
        )
    exists = "unknown: Terraform's state cannot be read; look at the cloud's own console"
    if there is not None:
        nodes = sum(is_node(each) for each in there)
        exists = f"{nodes} nodes, {len(there)} resources: {', '.join(there)}"
    return "\n".join(
        [
            f"{name}: `up` {how} half-way.",
            f"  exists:   {exists}",
            f"  costs:    {price}{' if all nodes exist' if there is None else ''}",
            f"  continue: hpctrain cluster up --provider {provider} --name {name}",
            f"  destroy:  hpctrain cluster down --name {name}",
        ]
    )


def _forget_changed_nodes(
    directory: ClusterDirectory,
    before: ClusterRecord | None,
    nodes: Sequence[ClusterNode],
    ids: Mapping[str, str],
) -> None:
    """Drop the host keys of machines that are not the ones on record.

    Told by the cloud's own names, not by this plan: an `up` before may have replaced a machine
    and ended before it came here.
    """
    known = directory.path / "known_hosts"
    if not known.exists():
        return
    recorded = before.provider_data.get("instances", {}) if before else {}
    others = [*(before.nodes if before else ()), *nodes]
    changed = [node for node in others if recorded.get(node.name) != ids.get(node.name, "")]
    gone = {each for node in changed for each in (node.address, node.public_address) if each}
    directory.write_text("known_hosts", forget_hosts(known.read_text(), sorted(gone)))
