"""What network do a cloud's machines have? A dated table (`nics.toml`) of published line rates.

Published rates are those of the wire. What NCCL gets of them where nothing was measured:
:data:`ACHIEVED`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpctrain.errors import ConfigError, did_you_mean
from hpctrain.scaling_model.links import Link

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

TABLE = Path(__file__).with_name("nics.toml")
# Bandwidth of a large all-reduce's bytes between nodes / line rate, as people report nccl-tests:
# p4d (50 GB/s), 1 GiB: 2 nodes 0.61 (one pass by trees), 3 nodes 0.635, 4 nodes 0.592, and 0.77
# within one (NVIDIA/nccl issue 527, 2022); 8 cards of 100 Gbit/s: 0.60 and 0.75 (NVIDIA/nccl issues
# 812 and 495); 4 nodes: 0.8 (NVIDIA/nccl-tests issue 160); well-tuned InfiniBand: 0.96 (issues 160
# and 812, NVIDIA's own). So 0.59 to 0.96; the band from 0.75 holds just these.
ACHIEVED, ACHIEVED_ERROR = 0.75, 0.28
ACHIEVED_SOURCE = "0.75 of the line rate (nccl-tests, 0.59 to 0.96: NVIDIA/nccl#495, #527, #812)"
GBIT = 1e9 / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A machine that can be rented.

    Args:
        link: of the whole node to others, as NCCL will get it; `line_gbit` is the published rate.
        intra: between two of its GPUs.
        gpu: as `hpctrain estimate --gpu` names it.
        flow_gbit: the most that one TCP connection between two of them carries; None: unknown.
        bursts: the rate holds for a short time only.
        needs: what the rate is had with only; without it the nodes have `plain_gbit`.
    """

    name: str
    provider: str
    link: Link
    intra: Link
    line_gbit: float
    gpus: int
    gpu: str
    flow_gbit: float | None
    bursts: bool
    source: str
    needs: str | None = None
    plain_gbit: float | None = None


def find_instance(name: str) -> Instance:
    """Return a machine by its vendor's name.

    Raises:
        ConfigError: it is not in the table.

    >>> p4d = find_instance("p4d.24xlarge")
    >>> p4d.gpus, p4d.gpu, p4d.line_gbit, p4d.link.bandwidth_bytes_per_s
    (8, 'a100-40gb', 400, 37500000000.0)
    """
    table = _read_table()
    found = table["instances"].get(name.lower())
    if found is None:
        known = sorted(table["instances"])
        raise ConfigError(
            f"--instance: unknown machine, got '{name}'; expected one of {', '.join(known)}."
            f"{did_you_mean(name.lower(), known)} Or give its network: --link 100gbit,20us."
        )
    latency_us, as_of = table["latency_us"], table["as_of"]
    intra = found["intra"]
    needs, plain_gbit = found.get("needs"), found.get("plain_gbit")
    proviso = f", with {needs}, else {plain_gbit:g} Gbit/s" if needs else ""
    within_us = latency_us["nvlink" if intra.endswith("nvlink") else "pcie"]
    return Instance(
        name=name.lower(),
        provider=found["provider"],
        link=published_link(
            latency_us["network"] * 1e-6, found["inter_gbit"], f"{name}, {as_of}{proviso}"
        ),
        intra=published_link(
            within_us * 1e-6, table["intra_gbit"][intra], f"{intra}, {as_of}"
        ),
        line_gbit=found["inter_gbit"],
        gpus=found["gpus"],
        gpu=found["gpu"],
        flow_gbit=found.get("flow_gbit"),
        bursts=found.get("burst", False),
        source=f"{table['sources'][found['provider']]}, as of {as_of}",
        needs=needs,
        plain_gbit=plain_gbit,
    )  # fmt: skip


def instance_names() -> list[str]:
    """Return the names in the table."""
    return sorted(_read_table()["instances"])


def published_link(latency_s: float, line_gbit: float, source: str) -> Link:
    """Return the link that NCCL will have where a line rate is all that is known."""
    return Link(
        latency_s, line_gbit * GBIT * ACHIEVED, name=f"{line_gbit:g} Gbit/s", error=ACHIEVED_ERROR,
        source=f"published {line_gbit:g} Gbit/s ({source}), {ACHIEVED_SOURCE}",
    )  # fmt: skip


def as_line_rate(link: Link) -> Link:
    """Return what NCCL will have of a link whose bandwidth is that of the wire."""
    return replace(
        link,
        bandwidth_bytes_per_s=link.bandwidth_bytes_per_s * ACHIEVED,
        error=ACHIEVED_ERROR,
        source=f"{link.source}, {ACHIEVED_SOURCE}",
    )


@functools.cache
def _read_table() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))
