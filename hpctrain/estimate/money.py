"""What do so many GPUs cost for so long, at each provider that has nodes of that shape?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpctrain.clusters.cloud.machines import read_machines
from hpctrain.estimate.gpus import Gpu

# GPUs that GCP attaches to a machine without, and how many. To each 8 CPUs, which is allowed for
# all of these (cloud.google.com/compute/docs/gpus).
ATTACHED: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "t4": ("nvidia-tesla-t4", (1, 2, 4)),
    "v100-16gb": ("nvidia-tesla-v100", (1, 2, 4, 8)),
}
CPUS_A_GPU = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """A way to rent the GPUs; machines alone, without disks, traffic and taxes.

    Args:
        gpus: of one machine.
        on_demand_usd_per_hour, spot_usd_per_hour: of one machine; None where unknown.
        source: of the on-demand price, with its date.
        spot_source: of the spot price, or what is known where there is none.
        other_shape: nodes of another size than is estimated: other networks, another speed.
    """

    provider: str
    machine: str
    gpus: int
    machines: int
    on_demand_usd_per_hour: float
    spot_usd_per_hour: float | None
    source: str
    spot_source: str
    other_shape: bool = False

    def on_demand_usd(self, hours: float) -> float:
        """Return what so many hours cost on demand."""
        return self.machines * self.on_demand_usd_per_hour * hours

    def spot_usd(self, hours: float) -> float | None:
        """Return what so many hours cost on spot machines; None where the price is unknown."""
        if self.spot_usd_per_hour is None:
            return None
        return self.machines * self.spot_usd_per_hour * hours


def find_offers(
    table: Mapping[str, Any], gpu: Gpu, nodes: int, gpus_per_node: int, instance: str | None = None
) -> tuple[Offer, ...]:
    """Return the cheapest way at each provider to rent these nodes, the cheapest first.

    With `instance` that machine alone, one for each node. Else machines with as many GPUs as a
    node has. At a provider without such the cheapest other that has enough GPUs, marked: what it
    computes is not what was estimated, so it counts for nothing; those are last.

    Args:
        table: as :func:`hpctrain.clusters.cloud.prices.read_prices` gives it.
    """
    found = []
    for provider in ("aws", "gcp"):
        kinds = [each for each in priced_machines(table, gpu) if each[0] == provider]
        if instance is not None:
            kinds = [each for each in kinds if each[1] == instance]
        same = [each for each in kinds if instance is not None or each[2] == gpus_per_node]
        offers = [
            _offer(table, *kind, nodes if same else -(-nodes * gpus_per_node // kind[2]), not same)
            for kind in same or kinds
        ]
        found += [min(offers, key=lambda each: each.on_demand_usd(1.0))] if offers else []
    return tuple(sorted(found, key=lambda each: (each.other_shape, each.on_demand_usd(1.0))))


def priced_machines(table: Mapping[str, Any], gpu: Gpu) -> Iterator[tuple[str, str, int, float]]:
    """Yield (provider, machine, GPUs, USD an hour) of all that have the GPU and a price.

    Those that GCP attaches GPUs to are called e.g. ``n1-standard-8 + 1 nvidia-tesla-t4``.
    """
    for (provider, machine), facts in read_machines().items():
        usd = table[provider]["machines"].get(machine)
        if facts.gpu == gpu.machine and usd is not None:
            yield provider, machine, facts.gpus, usd
    name, counts = ATTACHED.get(gpu.name, ("", ()))
    gpu_usd = table["gcp"].get("gpus", {}).get(name)
    for count in counts:
        host_usd = table["gcp"]["machines"].get(f"n1-standard-{CPUS_A_GPU * count}")
        if gpu_usd is not None and host_usd is not None:
            yield "gcp", attached_name(name, count), count, host_usd + count * gpu_usd


def attached_name(gpu: str, count: int) -> str:
    """Return what we call a machine with so many of GCP's attached GPUs.

    >>> attached_name("nvidia-tesla-t4", 2)
    'n1-standard-16 + 2 nvidia-tesla-t4'
    """
    return f"n1-standard-{CPUS_A_GPU * count} + {count} {gpu}"


def _offer(
    table: Mapping[str, Any], provider: str, machine: str, gpus: int, usd_per_hour: float,
    machines: int, other_shape: bool,
) -> Offer:  # fmt: skip
    seen = table[provider].get("seen", {}).get(machine)
    spot = table[provider].get("spot", {}).get(machine)
    return Offer(
        provider=provider, machine=machine, gpus=gpus, machines=machines,
        on_demand_usd_per_hour=usd_per_hour,
        spot_usd_per_hour=None if spot is None else spot["usd_per_hour"],
        source=f"prices.toml, list price as of {table['as_of']}"
        + (f"; seen {seen}" if seen else ""),
        spot_source=table[provider].get("spot_words", "") if spot is None
        else f"{spot['source']}, as of {spot['as_of']}",
        other_shape=other_shape,
    )  # fmt: skip
