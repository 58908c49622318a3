"""What would `up` do on a cloud? Terraform's own plan as facts; from them, purely, the words."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpctrain.clusters.cloud.access import make_key
from hpctrain.clusters.cloud.environ import terraform_environ
from hpctrain.clusters.cloud.events import Message, planned_actions, short_address
from hpctrain.clusters.cloud.machines import gpus_per_node
from hpctrain.clusters.cloud.packages import node_constraints, node_requirements
from hpctrain.clusters.cloud.prices import Price, estimate_price, read_prices
from hpctrain.clusters.cloud.root import ROOT_FILE, copy_modules, render_root
from hpctrain.clusters.cloud.settings import CloudSettings, changed_settings, parse_settings
from hpctrain.clusters.cloud.state import (
    KEY,
    STATE_FILE,
    fingerprint,
    has_state,
    is_node,
    made_folder,
    refuse_errored_state,
)
from hpctrain.clusters.cloud.terraform import TerraformAdapter
from hpctrain.clusters.cloud.versions import find_terraform
from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterNode, ClusterRecord
from hpctrain.clusters.provider import ClusterPlan, ClusterRequest
from hpctrain.errors import ConfigError, raise_all
from hpctrain.executor import LocalExecutor
from hpctrain.launch.find_mpi import cache_folder

PLAN_FILE = "up.tfplan"
ENDS_IT = ("replace", "delete")


@dataclass(frozen=True, slots=True)
class CloudFacts:
    """What a plan must know.

    Args:
        settings: what was asked for, on top of what the cluster was made with.
        options: the same as it was typed, to be kept in the record.
        actions: Terraform's plan, resource → create, update, replace or delete.
        changes: whether it is to be applied; outputs alone may change, too.
        seen: the key and the state as the plan was made for them.
        slots: GPUs of a node.
        scratch: the folder with Terraform's plan; `up` moves it into the cluster's directory.
    """

    settings: CloudSettings
    options: Mapping[str, Any]
    actions: Mapping[str, str]
    slots: int
    price: Price
    terraform_version: str
    scratch: Path
    changes: bool = True
    seen: str = ""


def gather_cloud_facts(request: ClusterRequest, directory: ClusterDirectory) -> CloudFacts:
    """Let Terraform plan, in a folder of its own; change nothing at the cloud or in the directory.

    Raises:
        ConfigError: options are wrong; with all of them.
        ClusterError: no Terraform, no credentials, or what Terraform says of the options.
    """
    refuse_errored_state(directory)
    seen = fingerprint(directory)
    record = directory.read()
    made_with = record.provider_data if record else {}
    options = {**made_with.get("options", {}), **request.options}
    nodes = request.nodes if request.nodes is not None else made_with.get("nodes")
    settings = parse_settings(request.provider, options, nodes)
    old = parse_settings(request.provider, made_with["options"], nodes) if record else settings
    if has_state(directory):  # another backend's state would know nothing of the cluster
        raise_all(ConfigError, changed_settings(request.name, old, settings, ("backend",)))
    prices = read_prices(Path(settings.prices) if settings.prices else None)
    version = find_terraform(request.environ)
    scratch = prepare_scratch(request, directory, settings)
    adapter = TerraformAdapter(scratch, terraform_environ(request.environ))
    adapter.prepare()
    if any(map(is_node, adapter.list_state())):
        raise_all(ConfigError, changed_settings(request.name, old, settings))
    messages: list[Message] = []
    changes = adapter.plan_into(PLAN_FILE, messages.append, lock=False)
    return CloudFacts(
        settings=settings,
        options=options,
        actions={short_address(each): do for each, do in planned_actions(messages).items()},
        slots=gpus_per_node(request.provider, settings),
        price=estimate_price(prices, request.provider, settings, nodes=settings.nodes),
        terraform_version=version,
        scratch=scratch,
        changes=changes,
        seen=seen,
    )


def prepare_scratch(
    request: ClusterRequest, directory: ClusterDirectory, settings: CloudSettings
) -> Path:
    """Return a new folder of our own with everything that Terraform needs to plan."""
    parent = cache_folder(request.environ) / "terraform"
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{request.name}-", dir=parent))  # mode 700
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    made_with = made_folder(directory) / "modules"
    if made_with.is_dir():  # a cluster keeps the modules that it was made with
        shutil.copytree(made_with, scratch / "modules")
    else:
        copy_modules(request.provider, scratch / "modules")
    kept = directory.path / KEY
    key = kept if kept.exists() else scratch / KEY
    public_key = make_key(key, f"hpctrain {request.name}", LocalExecutor())
    text = render_root(
        request.name,
        request.provider,
        settings,
        public_key=public_key,
        ssh_folder=directory.path,
        state=directory.path / STATE_FILE,
        requirements=node_requirements() if settings.install else (),
        constraints=node_constraints() if settings.install else (),
    )
    (scratch / ROOT_FILE).write_text(text, encoding="utf-8")
    return scratch


def plan_cloud(request: ClusterRequest, facts: CloudFacts) -> ClusterPlan:
    """Plan; pure."""
    settings = facts.settings
    names = [f"{request.name}-{index}" for index in range(settings.nodes)]
    lost = [each for each, do in facts.actions.items() if is_node(each) and do in ENDS_IT]
    gpu = f" + {settings.gpus_per_node or 1} {settings.gpu_type}" if settings.gpu_type else ""
    kind = "spot" if settings.spot else "on demand"
    lines = [
        f"{request.name}: {settings.nodes} nodes {settings.machine_type}{gpu} in {settings.zone}, "
        f"{kind}, {facts.slots} slots each",
        f"price: {facts.price.words}",
        f"idle: {idle_words(settings)}",
        f"ssh: from {', '.join(settings.ssh_from_cidrs)}",
        f"Terraform {facts.terraform_version}: {count_words(facts.actions)}"
        + (", what is known of the nodes changes" if facts.changes and not facts.actions else ""),
        *(f"  {do:<8} {each}" for each, do in facts.actions.items()),
    ]
    warnings = [f"{each}: what is on this node's disk is lost" for each in lost]
    if settings.ssh_from_anywhere:
        warnings.append("ssh_from_anywhere: every machine of the internet may try to log in")
    if request.provider == "gcp" and not settings.own_network:
        warnings.append(
            "own_network = false: Google's default network lets ssh in from everywhere, unless its "
            "rule default-allow-ssh was removed"
        )
    return ClusterPlan(
        request=request,
        nodes=tuple(ClusterNode(name, "", facts.slots) for name in names),
        lines=tuple(lines),
        as_json={
            "name": request.name,
            "provider": request.provider,
            "settings": asdict(settings),
            "actions": dict(facts.actions),
            "price": asdict(facts.price),
        },
        detail=facts,
        warnings=tuple(warnings),
        question="Make this, and pay for it?" if facts.actions else "",
    )


def idle_words(settings: CloudSettings) -> str:
    """Return what happens to a cluster that is forgotten."""
    hours = settings.idle_shutdown_hours
    if hours == 0:
        return "nodes run, and cost, until `hpctrain cluster down` (idle_shutdown_hours = 0)"
    end = "; a spot node of AWS is then gone with its disk" if settings.spot else ""
    return f"each node turns itself off after {hours:g} idle hours{end}"


def count_words(actions: Mapping[str, str]) -> str:
    """Return how much a plan does.

    >>> count_words({"a": "create", "b": "create", "c": "replace"})
    '2 to create, 1 to replace'
    """
    kinds = [do for do in ("create", "update", "replace", "delete") if do in actions.values()]
    counts = [f"{list(actions.values()).count(do)} to {do}" for do in kinds]
    return ", ".join(counts) or "nothing to do"


def nodes_from_outputs(outputs: Mapping[str, Any]) -> tuple[ClusterNode, ...]:
    """Return the nodes that Terraform has made."""
    return tuple(
        ClusterNode(
            each["name"], each["private_address"], outputs["gpus_per_node"], each["public_address"]
        )
        for each in outputs.get("nodes", [])
    )


def new_record(request: ClusterRequest, facts: CloudFacts, state: str) -> ClusterRecord:
    """Return the record of a cluster that is being made; it holds no secret."""
    return ClusterRecord(
        name=request.name,
        provider=request.provider,
        created_s=time.time(),
        state=state,
        reachable_from_here=False,
        provider_data={"options": dict(facts.options), "nodes": facts.settings.nodes},
    )


def instance_ids(outputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the machine that each node is now, by the cloud's own name for it."""
    return {each["name"]: each["id"] for each in outputs.get("nodes", [])}
