"""What tuning knows of a run, and one thing that it may try values of, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BUCKET, COMPRESSION, THREADS = "comm.bucket_mb", "comm.compression", "launch.threads_per_rank"
YIELD, ALLREDUCE = "mpi_yield_when_idle", "coll_tuned_allreduce_algorithm"
EAGER, CYCLE = "btl_tcp_eager_limit", "HOROVOD_CYCLE_TIME"
ALGO, PROTO, SOCKETS = "NCCL_ALGO", "NCCL_PROTO", "NCCL_SOCKET_NTHREADS"
MIN_CHANNELS, MAX_CHANNELS = "NCCL_MIN_NCHANNELS", "NCCL_MAX_NCHANNELS"


@dataclass(frozen=True, slots=True)
class Value:
    """A value to try: what it is called, and the settings (``section.key``) that it means."""

    label: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One thing to try values of.

    Args:
        name: as the program that reads it calls it; for ``--only``.
        base: what a run has now, in words.
        lossy: whether it changes the numbers that the model learns from.
    """

    name: str
    base: str
    values: tuple[Value, ...]
    reason: str
    source: str
    lossy: bool = False

    def settings_of(self, label: str) -> Mapping[str, Any]:
        """Return what a value (by its label) sets."""
        return next(value.settings for value in self.values if value.label == label)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A knob that is not tried, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneFacts:
    """What the choice of knobs depends on.

    Args:
        cores_per_rank: of the host that has the fewest; None where a host was never asked.
        mpi_flavour: as in :class:`hpctrain.facts.Facts`.
        has_nccl: whether the exchange on GPUs is NCCL's.
        has_rdma: whether a host is known to have an RDMA port.
        gradient_bytes: of all gradients (fp32); None where the model is not ours.
        given: the settings that the configuration has now, by ``section.key``, variables as
            ``launch.env.NAME``.
        shell: names of the variables that are set in this shell.
    """

    np: int
    nodes: int
    cores_per_rank: int | None
    mpi_flavour: str
    backend: str = "horovod"
    exchange: str = "buckets"
    uses_gpus: bool = False
    has_nccl: bool = False
    has_rdma: bool = False
    gradient_bytes: int | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    shell: frozenset[str] = frozenset()

    @property
    def carrier(self) -> str:
        """What exchanges gradients: ``nccl``, ``mpi``, ``gloo``, or ``nothing``."""
        if self.np == 1 or self.backend == "none":
            return "nothing"
        if self.uses_gpus and (self.has_nccl or self.backend == "ddp"):
            return "nccl"
        return "gloo" if self.backend == "ddp" else "mpi"


def describe(facts: TuneFacts) -> str:
    """Return what exchanges gradients, in words."""
    where = "GPUs" if facts.uses_gpus else "CPUs"
    return f"{facts.np} rank{'s' * (facts.np > 1)} on {where}, {facts.carrier} exchanges"
