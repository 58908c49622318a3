"""What would `up` do on a cloud? Terraform's own plan as facts; from them, purely, the words."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpctrain.clusters.cloud.access import make_key
from hpctrain.clusters.cloud.events import Message, planned_actions, short_address
from hpctrain.clusters.cloud.machines import gpus_per_node
from hpctrain.clusters.cloud.packages import node_constraints, node_requirements
from hpctrain.clusters.cloud.prices import Price, estimate_price, read_prices
from hpctrain.clusters.cloud.root import ROOT_FILE, copy_modules, render_root
from hpctrain.clusters.cloud.settings import CloudSettings, parse_settings
from hpctrain.clusters.cloud.terraform import TerraformAdapter
from hpctrain.clusters.cloud.versions import find_terraform
from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterNode, ClusterRecord
from hpctrain.clusters.provider import ClusterPlan, ClusterRequest
from hpctrain.errors import ClusterError
from hpctrain.executor import LocalExecutor
from hpctrain.launch.find_mpi import cache_folder

FOLDER = "terraform"  # in the cluster's directory
STATE_FILE = "terraform.tfstate"
PLAN_FILE = "up.tfplan"
KEY = "id_ed25519"
ENDS_IT = ("replace", "delete")
NODE_RESOURCES = ("aws_instance.node[", "google_compute_instance.node[")


@dataclass(frozen=True, slots=True)
class CloudFacts:
    """What a plan must know.

    Args:
        settings: what was asked for, on top of what the cluster was made with.
        options: the same as it was typed, to be kept in the record.
        actions: Terraform's plan, resource → create, update, replace or delete.
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


def gather_cloud_facts(request: ClusterRequest, directory: ClusterDirectory) -> CloudFacts:
    """Let Terraform plan, in a folder of its own; change nothing at the cloud or in the directory.

    Raises:
        ConfigError: options are wrong; with all of them.
        ClusterError: no Terraform, no credentials, or what Terraform says of the options.
    """
    record = directory.read()
    options = {**(record.provider_data.get("options", {}) if record else {}), **request.options}
    nodes = request.nodes
    if nodes is None and record is not None:
        nodes = record.provider_data.get("nodes")
    settings = parse_settings(request.provider, options, nodes)
    prices = read_prices(Path(settings.prices) if settings.prices else None)
    version = find_terraform(request.environ)
    scratch = prepare_scratch(request, directory, settings)
    adapter = TerraformAdapter(scratch, terraform_environ(request.environ))
    adapter.prepare()
    messages: list[Message] = []
    adapter.plan_into(PLAN_FILE, messages.append, lock=False)
    return CloudFacts(
        settings=settings,
        options=options,
        actions={short_address(each): do for each, do in planned_actions(messages).items()},
        slots=gpus_per_node(request.provider, settings),
        price=estimate_price(prices, request.provider, settings, nodes=settings.nodes),
        terraform_version=version,
        scratch=scratch,
    )


def prepare_scratch(
    request: ClusterRequest, directory: ClusterDirectory, settings: CloudSettings
) -> Path:
    """Return a new folder of our own with everything that Terraform needs to plan."""
    parent = cache_folder(request.environ) / "terraform"
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{request.name}-", dir=parent))  # mode 700
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    made_with = directory.path / FOLDER / "modules"
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


def terraform_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables for Terraform: a provider is downloaded once for all clusters.

    The cache may be used before a lock file knows the provider, because ours are made anew.
    """
    if "TF_PLUGIN_CACHE_DIR" in environ:
        return {}
    cache = cache_folder(environ) / "terraform-plugins"
    cache.mkdir(parents=True, exist_ok=True)
    return {
        "TF_PLUGIN_CACHE_DIR": str(cache),
        "TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE": "1",
    }


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
        f"Terraform {facts.terraform_version}: {count_words(facts.actions)}",
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


def is_node(address: str) -> bool:
    """Return whether a resource is a machine."""
    return short_address(address).startswith(NODE_RESOURCES)


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


def state_count(adapter: TerraformAdapter) -> tuple[list[str], int]:
    """Return what is in the state, and how many of it are machines."""
    try:
        there = [short_address(each) for each in adapter.list_state()]
    except ClusterError:
        there = []
    return there, sum(is_node(each) for each in there)


def has_state(directory: ClusterDirectory) -> bool:
    """Return whether Terraform has ever been set up for this cluster."""
    return os.path.isdir(directory.path / FOLDER / ".terraform")
