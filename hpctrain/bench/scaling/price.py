"""What does an hour on these hosts cost? Known of clouds' clusters, or said by who pays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpctrain.clusters.cluster_dir import ClusterRecord
from hpctrain.errors import ConfigError

CLOUDS = ("aws", "gcp")


def given_price(usd_per_hour: float, date: str) -> dict[str, Any]:
    """Return the price that ``--usd-per-hour`` says, as a plan holds it."""
    return {"value": usd_per_hour, "what": "as --usd-per-hour says", "as_of": date}


def cluster_price(record: ClusterRecord) -> dict[str, Any] | None:
    """Return what a cluster costs an hour by the price table, as a plan holds it.

    Returns:
        None for one that costs nothing, or whose machines are not in the table.
    """
    if record.provider not in CLOUDS:
        return None
    from hpctrain.clusters.cloud.prices import estimate_price, read_prices
    from hpctrain.clusters.cloud.settings import parse_settings

    data = record.provider_data
    try:
        settings = parse_settings(record.provider, data.get("options", {}), data.get("nodes"))
        price = estimate_price(
            read_prices(Path(settings.prices) if settings.prices else None),
            record.provider,
            settings,
            nodes=settings.nodes,
        )
    except ConfigError:
        return None
    if price.usd_per_hour is None:
        return None
    bound = ", at most" if price.is_upper_bound else ""
    return {
        "value": price.usd_per_hour,
        "what": f"{settings.nodes} x {settings.machine_type} on {record.provider}, list prices"
        + bound,
        "as_of": price.as_of,
    }
