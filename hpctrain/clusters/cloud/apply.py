"""Carry out `up` on a cloud: apply the plan that was shown, wait for the nodes, set them up."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hpctrain.clusters.cloud.access import NodeAccess, forget_hosts
from hpctrain.clusters.cloud.boot_wait import wait_for_nodes
from hpctrain.clusters.cloud.events import Message, Progress, fold_message, short_address
from hpctrain.clusters.cloud.node_setup import NodeSetup
from hpctrain.clusters.cloud.plan import (
    FOLDER,
    KEY,
    PLAN_FILE,
    CloudFacts,
    idle_words,
    is_node,
    new_record,
    nodes_from_outputs,
    state_count,
    terraform_environ,
)
from hpctrain.clusters.cloud.prices import estimate_price, read_prices
from hpctrain.clusters.cloud.terraform import TerraformAdapter, interrupts_ignored
from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterRecord
from hpctrain.clusters.provider import ClusterPlan, Console
from hpctrain.errors import EXIT_INTERRUPTED, ClusterError
from hpctrain.executor import Executor

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
    before = directory.read()
    record = new_record(plan.request, facts, "creating")
    if before is not None:
        record = replace(
            record, created_s=before.created_s, hostfile_links=before.hostfile_links,
            nodes=before.nodes,
        )  # fmt: skip
    directory.write(record)
    folder = adopt_scratch(facts.scratch, directory)
    adapter = TerraformAdapter(
        folder, terraform_environ(plan.request.environ), lambda count: on_interrupt(console, count)
    )
    try:
        if facts.actions:
            failed = adapter.carry_out(PLAN_FILE, ResourceLines(console))
            if failed or adapter.interrupts:
                raise ClusterError(*failed)
        outputs = adapter.read_outputs()
        nodes = nodes_from_outputs(outputs)
        record = replace(record, nodes=nodes)
        directory.write(record)
        directory.write_text("ssh_config", outputs["ssh_config"])
        _forget_changed_nodes(directory, facts, [node.address for node in nodes])
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
    record = replace(record, state="up")
    directory.write(record)
    console.say(f"{record.name}: {idle_words(facts.settings)}")
    return record


def adopt_scratch(scratch: Path, directory: ClusterDirectory) -> Path:
    """Move the plan that was shown, with its key, into the cluster's directory."""
    folder = directory.path / FOLDER
    for name in (KEY, f"{KEY}.pub"):
        if (scratch / name).exists():
            shutil.move(scratch / name, directory.path / name)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.move(scratch, folder)
    return folder


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
    price = estimate_price(prices, provider, facts.settings, nodes=count)
    error = ClusterError(*messages, half_way_words(name, provider, there, price.words, stopped))
    if stopped:
        error.exit_code = EXIT_INTERRUPTED
    return error


def half_way_words(
    name: str, provider: str, there: Sequence[str], price: str, stopped: bool
) -> str:
    """Return what exists, what it costs an hour, and how to go on or destroy; pure."""
    how = "was stopped" if stopped else "stopped"
    if not there:
        return (
            f"{name}: `up` {how} half-way; nothing exists, and nothing costs anything. "
            f"Try again: hpctrain cluster up --provider {provider} --name {name}"
        )
    nodes = sum(is_node(each) for each in there)
    return "\n".join(
        [
            f"{name}: `up` {how} half-way.",
            f"  exists:   {nodes} nodes, {len(there)} resources: {', '.join(there)}",
            f"  costs:    {price}",
            f"  continue: hpctrain cluster up --provider {provider} --name {name}",
            f"  destroy:  hpctrain cluster down --name {name}",
        ]
    )


def _forget_changed_nodes(
    directory: ClusterDirectory, facts: CloudFacts, addresses: Sequence[str]
) -> None:
    """Drop the host keys of machines that are new: an address may have been another's before."""
    changed = [int(each.partition("[")[2].rstrip("]")) for each in facts.actions if is_node(each)]
    known = directory.path / "known_hosts"
    if not known.exists() or not changed:
        return
    gone = {addresses[index] for index in changed if index < len(addresses)}
    record = directory.read()
    if 0 in changed and record is not None:
        gone |= {node.public_address or "" for node in record.nodes}
    directory.write_text("known_hosts", forget_hosts(known.read_text(), sorted(gone)))
