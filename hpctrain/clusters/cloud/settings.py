"""What a cloud cluster is made from: options → typed settings, with every error at once.

The settings that go to Terraform have the names of the modules' variables, and their ranges are
checked there, so that they stand in one place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import msgspec

from hpctrain.errors import ConfigError, did_you_mean, raise_all

# Small and cheap, so that a first try costs little.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "aws": {"machine_type": "g5.xlarge", "zone": "us-east-1a"},
    "gcp": {
        "machine_type": "n1-standard-8",
        "gpu_type": "nvidia-tesla-t4",
        "zone": "us-central1-a",
    },
}
DEFAULT_NODES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSettings:
    """One cluster on a cloud. The docstrings of the modules' variables explain the first block."""

    nodes: int = DEFAULT_NODES
    machine_type: str = ""
    zone: str = ""
    gpu_type: str | None = None
    gpus_per_node: int | None = None
    spot: bool = False
    own_network: bool = True
    network_cidr: str = "10.42.0.0/16"
    fast_network: bool = True
    compact_placement: bool = True
    ssh_from_cidrs: tuple[str, ...] = ()
    ssh_from_anywhere: bool = False
    address_quota: int = 5
    disk_gb: int = 200
    disk_kms_key: str | None = None
    shared_disk: bool = False
    image: str | None = None
    idle_shutdown_hours: float = 2.0
    labels: Mapping[str, str] = field(default_factory=dict)

    project: str | None = None
    """The Google Cloud project; for GCP alone."""
    provider_settings: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of Terraform's provider, such as AWS's `profile`."""
    backend: Mapping[str, Any] = field(default_factory=dict)
    """Terraform's backend as one table, such as [backend.s3]; none keeps the state locally."""
    prices: str | None = None
    """A prices.toml of your own, on top of the one that comes with hpctrain."""
    boot_timeout_s: float = 1200.0
    """How long to wait for ssh and the ready mark of all nodes, in s."""
    install: bool = True
    """Install hpctrain, torch and Horovod on the nodes."""


# Of a cluster that has nodes these stay; others, such as ssh_from_cidrs, may change.
AT_CREATION = (
    "machine_type", "zone", "gpu_type", "gpus_per_node", "spot", "own_network", "network_cidr",
    "fast_network", "compact_placement", "disk_gb", "disk_kms_key", "shared_disk", "image",
    "idle_shutdown_hours", "project", "backend",
)  # fmt: skip
# They would land in cluster.json, in main.tf.json and in what `plan --json` prints.
_SECRETS = frozenset((
    "access_key", "secret_key", "token", "session_token", "credentials", "access_token",
    "encryption_key", "sse_customer_key", "password", "conn_str", "sas_token", "client_secret",
))  # fmt: skip
_OWN = ("project", "provider_settings", "backend", "prices", "boot_timeout_s", "install")


def parse_settings(provider: str, options: Mapping[str, Any], nodes: int | None) -> CloudSettings:
    """Return the settings.

    >>> parse_settings("aws", {"ssh_from_cidrs": "198.51.100.7/32", "spot": "true"}, 3).nodes
    3

    Args:
        provider: aws or gcp.
        options: from a file, typed as TOML has them, or strings as people type them.
        nodes: from the command line; None for what the options say.

    Raises:
        ConfigError: with everything that is wrong.
    """
    hints = get_type_hints(CloudSettings)
    errors: list[str] = []
    values: dict[str, Any] = dict(DEFAULTS[provider])
    if "machine_type" in options:  # it brings its own GPUs, or wants others
        values.pop("gpu_type", None)
    for name, value in options.items():
        if name not in hints:
            hint = did_you_mean(name, hints)
            errors.append(f"{name}: unknown option of {provider}; expected another.{hint}")
            continue
        try:
            values[name] = msgspec.convert(_split(value, hints[name]), hints[name], strict=False)
        except msgspec.ValidationError as problem:
            errors.append(f"{name}: got {value!r}; {problem}.")
    if nodes is not None:
        values["nodes"] = nodes
    if not values.get("ssh_from_cidrs") and "ssh_from_cidrs" not in options:
        errors.append(
            "ssh_from_cidrs: from where ssh is let in, got nothing; expected your own public "
            "address such as 198.51.100.7/32. Give --set ssh_from_cidrs=ADDRESS/32"
        )
    if provider == "gcp" and not values.get("project"):
        errors.append("project: got nothing; expected your Google Cloud project's id.")
    if provider == "aws" and values.get("project"):
        errors.append(f"project: is for gcp alone, got {values['project']!r}; expected nothing.")
    for option in ("provider_settings", "backend"):
        errors += [
            f"{option}: {key} is a secret and would be kept in files, got one; expected none. "
            "Give it by the environment: AWS_PROFILE (aws), GOOGLE_APPLICATION_CREDENTIALS (gcp)."
            for key in secret_keys(values.get(option, {}))
        ]
    if len(values.get("backend", {})) > 1:
        names = ", ".join(values["backend"])
        errors.append(f"backend: got {names}; expected one table such as [backend.s3].")
    raise_all(ConfigError, errors)
    return CloudSettings(**values)


def changed_settings(
    name: str, old: CloudSettings, new: CloudSettings, fixed: Sequence[str] = AT_CREATION
) -> list[str]:
    """Return what is wrong with new settings of a cluster that has nodes, one line for each.

    Most count when a node is made: a later node would differ from the first ones, and some
    changes turn running nodes off or replace them.
    """
    return [
        f"{each}: counts when a cluster is made, got {getattr(new, each)}; expected "
        f"{getattr(old, each)}, which {name} was made with. Make another cluster, or take this "
        f"one down first: hpctrain cluster down --name {name}"
        for each in fixed
        if getattr(old, each) != getattr(new, each)
    ]


def module_arguments(settings: CloudSettings) -> dict[str, Any]:
    """Return the settings that are variables of the Terraform modules; unset ones are left out."""
    values = {
        each.name: getattr(settings, each.name)
        for each in dataclasses.fields(settings)
        if each.name not in _OWN
    }
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }


def secret_keys(table: Mapping[str, Any]) -> list[str]:
    """Return the names in a table, and in tables within it, whose values are secrets.

    >>> secret_keys({"s3": {"bucket": "b", "secret_key": "k"}})
    ['secret_key']
    """
    found = [key for key in table if key in _SECRETS]
    inner = [each for each in table.values() if isinstance(each, Mapping)]
    return found + [key for each in inner for key in secret_keys(each)]


def region_of(provider: str, zone: str) -> str:
    """Return the region of a zone.

    >>> region_of("aws", "us-east-1a"), region_of("gcp", "us-central1-a")
    ('us-east-1', 'us-central1')
    """
    if provider == "gcp":
        return zone.rpartition("-")[0]
    import re

    found = re.match(r"[a-z]{2}(-[a-z]+)+-\d+", zone)
    return found[0] if found else zone


def _split(value: Any, hint: Any) -> Any:
    """Return what a person typed with commas as a list."""
    if isinstance(value, str) and hint == tuple[str, ...]:
        return [part.strip() for part in value.split(",") if part.strip()]
    return value
