"""What a cloud's machine types have: the table that the Terraform modules read too."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hpctrain.clusters.cloud.settings import CloudSettings

TABLE = Path(__file__).resolve().parents[2] / "terraform/modules/cluster_layout/machines.csv"


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine type; `network_gbps` in Gb/s (1e9 bits)."""

    gpus: int
    gpu: str
    network_gbps: float
    efa_cards: int


@functools.cache
def read_machines() -> Mapping[tuple[str, str], Machine]:
    """Return the table: (cloud, machine type) → machine."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return MappingProxyType({
            (row["cloud"], row["machine_type"]): Machine(
                int(row["gpus"]), row["gpu"], float(row["network_gbps"]), int(row["efa_cards"])
            )
            for row in csv.DictReader(file)
        })  # fmt: skip


def gpus_per_node(provider: str, settings: CloudSettings) -> int:
    """Return a node's GPUs, as the layout module counts them."""
    known = read_machines().get((provider, settings.machine_type))
    return settings.gpus_per_node or (known.gpus if known else 1)
