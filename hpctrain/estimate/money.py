"""What do so many GPUs cost for so long, at each provider that has them?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpctrain.clusters.cloud.machines import read_machines
from hpctrain.estimate.gpus import Gpu

# GPUs that GCP attaches to a machine without: here always one to an n1-standard-8.
_ATTACHED = {"t4": "nvidia-tesla-t4", "v100-16gb": "nvidia-tesla-v100"}
_ATTACHED_TO = "n1-standard-8"


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """A way to rent the GPUs; machines alone, without disks, traffic and taxes.

    Args:
        gpus: of one machine.
        on_demand_usd_per_hour, spot_usd_per_hour: of one machine; None where unknown.
        source: of the on-demand price, with its date.
        spot_source: of the spot price, or what is known where there is none.
    """

    provider: str
    machine: str
    gpus: int
    machines: int
    on_demand_usd_per_hour: float
    spot_usd_per_hour: float | None
    source: str
    spot_source: str

    def on_demand_usd(self, hours: float) -> float:
        """Return what so many hours cost on demand."""
        return self.machines * self.on_demand_usd_per_hour * hours

    def spot_usd(self, hours: float) -> float | None:
        """Return what so many hours cost on spot machines; None where the price is unknown."""
        if self.spot_usd_per_hour is None:
            return None
        return self.machines * self.spot_usd_per_hour * hours


def find_offers(
    table: Mapping[str, Any], gpu: Gpu, gpus: int, gpus_per_node: int, instance: str | None = None
) -> tuple[Offer, ...]:
    """Return the cheapest way at each provider, the cheapest first; with `instance` that alone.

    Machines have as many GPUs as the nodes that were asked for, where they are sold so, else
    more: other networks than those of smaller machines would be another cluster.

    Args:
        table: as :func:`hpctrain.clusters.cloud.prices.read_prices` gives it.
    """
    found = []
    for provider in ("aws", "gcp"):
        offers = list(_offers(table, provider, gpu, gpus, gpus_per_node, instance))
        exact = [offer for offer in offers if offer.gpus == gpus_per_node]
        fitting = exact or offers
        found += [min(fitting, key=lambda each: each.on_demand_usd(1.0))] if fitting else []
    return tuple(sorted(found, key=lambda each: each.on_demand_usd(1.0)))


def priced_machines(table: Mapping[str, Any], gpu: Gpu) -> Iterator[tuple[str, str, int]]:
    """Yield (provider, machine, GPUs) of all that have the GPU and a price."""
    for (provider, machine), facts in read_machines().items():
        if facts.gpu == gpu.machine and machine in table[provider]["machines"]:
            yield provider, machine, facts.gpus


def _offers(
    table: Mapping[str, Any], provider: str, gpu: Gpu, gpus: int, gpus_per_node: int,
    instance: str | None,
) -> Iterator[Offer]:  # fmt: skip
    """Yield an offer for each machine."""
    for cloud, machine, size in priced_machines(table, gpu):
        wanted = machine == instance if instance else size >= min(gpus_per_node, gpus)
        if cloud == provider and wanted:
            price = table[provider]["machines"][machine]
            yield _offer(table, provider, machine, size, -(-gpus // size), price)
    attached = _ATTACHED.get(gpu.name)
    if provider == "gcp" and instance is None and attached in table["gcp"].get("gpus", {}):
        price = table["gcp"]["machines"][_ATTACHED_TO] + table["gcp"]["gpus"][attached]
        yield _offer(table, "gcp", f"{_ATTACHED_TO} + {attached}", 1, gpus, price)


def _offer(
    table: Mapping[str, Any], provider: str, machine: str, gpus: int, machines: int,
    usd_per_hour: float,
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
    )  # fmt: skip
