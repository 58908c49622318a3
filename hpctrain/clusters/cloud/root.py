"""Settings → the folder that Terraform runs in: a root module as JSON beside copies of ours.

The modules are copied, so that a cluster keeps the ones it was made with, and can be taken down
by plain `terraform destroy` there, whatever becomes of this hpctrain.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpctrain.clusters.cloud.settings import CloudSettings, module_arguments, region_of

MODULES = Path(__file__).resolve().parents[2] / "terraform" / "modules"
ROOT_FILE = "main.tf.json"
OUTPUTS = (
    "nodes", "head_address", "ssh_user", "gpus_per_node", "network_gbps", "hostfile",
    "ssh_config", "image",
)  # fmt: skip
_PROVIDERS = {
    "aws": {"source": "hashicorp/aws", "version": "~> 5.84"},
    "gcp": {"source": "hashicorp/google", "version": ">= 6.0, < 9.0"},
}
_PROVIDER_NAMES = {"aws": "aws", "gcp": "google"}


def render_root(
    name: str,
    provider: str,
    settings: CloudSettings,
    *,
    public_key: str,
    ssh_folder: Path,
    state: Path,
    requirements: Sequence[str] = (),
    constraints: Sequence[str] = (),
) -> str:
    """Return main.tf.json.

    Args:
        public_key: one line; no other key ever reaches Terraform.
        ssh_folder: the absolute folder of the key and known_hosts, for ssh_config.
        state: the absolute path of the state, where no other backend is configured.
        requirements: what pip installs on every node.
        constraints: lines that pin it.
    """
    provider_name = _PROVIDER_NAMES[provider]
    arguments = {
        "name": name,
        **module_arguments(settings),
        "ssh_public_key": public_key,
        "ssh_folder": str(ssh_folder),
        "python_requirements": list(requirements),
        "python_constraints": list(constraints),
    }
    root = {
        "//": "Made by hpctrain; changes are overwritten by the next `hpctrain cluster up`.",
        "terraform": {
            "required_version": ">= 1.9",
            "required_providers": {provider_name: _PROVIDERS[provider]},
            "backend": dict(settings.backend) or {"local": {"path": str(state)}},
        },
        "provider": {provider_name: provider_table(provider, settings)},
        "module": {
            "cluster": {
                "source": f"./modules/{provider}_gpu_cluster",
                **{key: _literal(value) for key, value in arguments.items()},
            }
        },
        "output": {each: {"value": f"${{module.cluster.{each}}}"} for each in OUTPUTS},
    }
    return json.dumps(root, indent=2) + "\n"


def provider_table(provider: str, settings: CloudSettings) -> dict[str, Any]:
    """Return the provider's configuration: where, and what the settings add."""
    table: dict[str, Any] = {"region": region_of(provider, settings.zone)}
    if provider == "gcp":
        table |= {"project": settings.project, "zone": settings.zone}
    return {**table, **settings.provider_settings}


def copy_modules(provider: str, target: Path) -> None:
    """Copy the modules that a provider's clusters are made of, without their tests."""
    for module in ("cluster_layout", f"{provider}_gpu_cluster"):
        shutil.copytree(
            MODULES / module, target / module, ignore=shutil.ignore_patterns("tests", ".terraform*")
        )


def _literal(value: Any) -> Any:
    """Return a value as Terraform's JSON has it: what looks like a template there is text here."""
    if isinstance(value, str):
        return value.replace("${", "$${").replace("%{", "%%{")
    if isinstance(value, Mapping):
        return {_literal(key): _literal(each) for key, each in value.items()}
    return [_literal(each) for each in value] if isinstance(value, list) else value
