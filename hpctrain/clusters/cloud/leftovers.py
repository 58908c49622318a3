"""What of a cluster is at the cloud, asked of the cloud itself by the cluster's tag.

By Terraform's own provider, with the credentials that it has already. Disks and network cards are
not asked for: the cloud removes them with their machine, some minutes later.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hpctrain.clusters.cloud.state import ROOT_FILE
from hpctrain.clusters.cloud.terraform import TerraformAdapter
from hpctrain.errors import ClusterError

TAG = "hpctrain-cluster"
# Data source → (what narrows it, the attribute with what was found).
_ASKED = {
    "aws_instances": (
        {"instance_state_names": ["pending", "running", "stopping", "stopped"]},
        "ids",
    ),
    "aws_eips": ({}, "public_ips"),
    "aws_vpcs": ({}, "ids"),
}
_PLAN = "left.tfplan"


def ask_what_is_left(adapter: TerraformAdapter, name: str) -> tuple[list[str], str]:
    """Return what is there in the cloud's own names, and why it was not asked ("" if it was)."""
    root = json.loads((adapter.folder / ROOT_FILE).read_text(encoding="utf-8"))
    if "aws" not in root["provider"]:
        return [], "Google's provider has no such question; look at its console"
    with tempfile.TemporaryDirectory(prefix="hpctrain-left-") as folder:
        asking = TerraformAdapter(Path(folder), adapter.environ)
        (asking.folder / ROOT_FILE).write_text(json.dumps(render_question(root, name)))
        locked = adapter.folder / ".terraform.lock.hcl"
        if locked.exists():
            shutil.copy(locked, folder)
        try:
            asking.prepare()
            asking.plan_into(_PLAN, lambda message: None, lock=False)
            if failed := asking.carry_out(_PLAN, lambda message: None):
                return [], "; ".join(failed)
            outputs = asking.read_outputs()
        except ClusterError as problem:
            return [], "; ".join(problem.messages)
    return [each for found in outputs.values() for each in found], ""


def render_question(root: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a root module that only looks: the cluster's provider, data sources, outputs; pure."""
    tags = {"instances": "instance_tags"}
    data: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    for kind, (narrowed, found) in _ASKED.items():
        by_tag = tags.get(kind.removeprefix("aws_"), "tags")
        data[kind] = {"left": {**narrowed, by_tag: {TAG: name}}}
        outputs[kind.removeprefix("aws_")] = {"value": f"${{data.{kind}.left.{found}}}"}
    wanted = {key: root["terraform"][key] for key in ("required_version", "required_providers")}
    return {
        "terraform": wanted, "provider": root["provider"], "data": data, "output": outputs,
    }  # fmt: skip
