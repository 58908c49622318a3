"""What every provider of clusters offers, and the values that it takes and gives.

A provider is a module with the functions of :class:`Provider`; :data:`PROVIDERS` names it. Facts
are gathered first, plans are made of them by pure functions, and `up` and `down` carry them out.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterNode, ClusterRecord
from hpctrain.errors import ClusterError

# name → (module, one line for --help)
PROVIDERS: Mapping[str, tuple[str, str]] = {
    "lab": ("hpctrain.clusters.lab", "nodes made of namespaces on this Linux machine"),
    "aws": ("hpctrain.clusters.cloud", "GPU nodes on EC2, made by Terraform"),
    "gcp": ("hpctrain.clusters.cloud", "GPU nodes on Compute Engine, made by Terraform"),
}


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """What a person asked for.

    Args:
        nodes: None where nobody said: the provider's default, or what is up already.
        options: the provider's own, from ``--config``, then ``--set``, then its flags; values
            are as TOML has them, or strings. The provider checks them, all at once.
        environ: this shell's variables.
    """

    name: str
    provider: str
    nodes: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What `up` would do, as a value.

    Args:
        nodes: the nodes there will be.
        lines: the plan in words, for a person.
        as_json: the plan as data, for ``--json``.
        detail: the provider's own plan, which its `up` carries out.
        question: what to ask before it is carried out, "" for nothing (``--yes`` skips it).
    """

    request: ClusterRequest
    nodes: tuple[ClusterNode, ...]
    lines: tuple[str, ...]
    as_json: Mapping[str, Any]
    detail: Any = None
    warnings: tuple[str, ...] = ()
    question: str = ""


@dataclass(frozen=True, slots=True)
class DownPlan:
    """What `down` would remove: in words, and as the provider wants it."""

    name: str
    lines: tuple[str, ...]
    detail: Any = None
    question: str = ""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node as it is now: `state` is "up" or a word for what is wrong with it."""

    name: str
    address: str
    slots: int
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """A cluster as it is now.

    Args:
        state: up, degraded, creating, destroying, half-made (left by a crash), leftover
            (found without a directory) or another's (made from another state folder).
        leftovers: what is there and should not be, in words.
    """

    name: str
    provider: str
    state: str
    nodes: tuple[NodeStatus, ...] = ()
    leftovers: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


class Console(Protocol):
    """Where a provider says what it does."""

    def say(self, text: str) -> None:
        """Print a line."""

    def warn(self, text: str) -> None:
        """Print a warning."""

    def working(self, text: str) -> AbstractContextManager[None]:
        """Show, while a block runs, that something takes long."""


class Provider(Protocol):
    """The functions of a provider's module."""

    def gather_facts(self, request: ClusterRequest, directory: ClusterDirectory) -> Any:
        """Ask this machine, or the cloud, what a plan must know; change nothing.

        Raises:
            ClusterError: clusters of this kind cannot be made here, and what can be done.
        """

    def plan_up(self, request: ClusterRequest, facts: Any) -> ClusterPlan:
        """Plan; pure.

        Raises:
            ConfigError: with everything that is wrong with the options.
        """

    def up(self, plan: ClusterPlan, directory: ClusterDirectory, console: Console) -> ClusterRecord:
        """Carry the plan out, with the directory locked; write record, hostfile, ssh_config."""

    def status(self, directory: ClusterDirectory) -> ClusterStatus:
        """Look at what is there now; the directory need not exist."""

    def plan_down(self, directory: ClusterDirectory) -> DownPlan:
        """Find what is to be removed; the directory need not exist."""

    def down(self, plan: DownPlan, directory: ClusterDirectory, console: Console) -> None:
        """Remove it, with the directory locked, and the directory at last.

        Raises:
            ClusterError: something is left; the directory stays.
        """

    def find_names(self) -> frozenset[str]:
        """Return the names of clusters that are there, with a directory or without."""


def find_provider(name: str) -> Provider:
    """Return a provider by its name in :data:`PROVIDERS`.

    Raises:
        ClusterError: this hpctrain has no such provider.
    """
    if name not in PROVIDERS:
        raise ClusterError(
            f"provider: this hpctrain has none of this name, got '{name}'; expected one of "
            f"{', '.join(PROVIDERS)}."
        )
    return cast(Provider, importlib.import_module(PROVIDERS[name][0]))
