"""What does a cluster cost an hour? A dated table times numbers; an estimate, and called one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpctrain.clusters.cloud.settings import CloudSettings
from hpctrain.errors import ConfigError, raise_all

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

TABLE = Path(__file__).with_name("prices.toml")
HOURS_PER_MONTH = 730.0
MOST_USD_PER_HOUR = 100_000  # of one machine
FILESTORE_GB = 1024.0  # the least that Google sells


@dataclass(frozen=True, slots=True)
class Price:
    """An estimate, or why there is none.

    Args:
        usd_per_hour: of all nodes with their disks and addresses; None where a machine's price
            is not in the table.
    """

    usd_per_hour: float | None
    as_of: str
    is_upper_bound: bool
    unknown: str = ""

    @property
    def words(self) -> str:
        """The estimate for a person, with its date."""
        if self.usd_per_hour is None:
            return f"price unknown: {self.unknown} is not in the table of {self.as_of}"
        about = "at most" if self.is_upper_bound else "about"
        return f"{about} {self.usd_per_hour:.2f} USD an hour (estimate, list prices {self.as_of})"


def read_prices(own: Path | None = None) -> dict[str, Any]:
    """Return the price table, with a user's own file on top.

    Raises:
        ConfigError: that file cannot be read.
    """
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    if own is None:
        return table
    try:
        merged = _merged(table, tomllib.loads(own.read_text(encoding="utf-8")))
    except (OSError, ValueError) as problem:
        raise ConfigError(
            f"prices: {own} cannot be read: {problem}; expected tables as in {TABLE}."
        ) from problem
    raise_all(
        ConfigError, [f"prices: {own}: {wrong} Correct it." for wrong in _wrong_prices(merged)]
    )
    return merged


def _wrong_prices(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is no price in a table, all of it."""
    for provider in ("aws", "gcp"):
        cloud = table[provider]
        for kind in ("machines", "gpus", "spot"):
            prices = cloud.get(kind, {}) if isinstance(cloud, Mapping) else None
            if not isinstance(prices, Mapping):
                yield f"{provider}.{kind}: no table, got {prices!r:.40}; expected names and prices."
                continue
            for name, price in prices.items():
                usd = price
                if kind == "spot":
                    is_whole = isinstance(price, Mapping) and {"as_of", "source"} <= set(price)
                    usd = price.get("usd_per_hour") if is_whole else None
                if (
                    isinstance(usd, bool)
                    or not isinstance(usd, (int, float))
                    or not (0 <= usd <= MOST_USD_PER_HOUR)
                ):
                    yield (
                        f"{provider}.{kind}.{name}: no price, got {price!r:.40}; expected US "
                        f"dollars an hour, 0 to {MOST_USD_PER_HOUR:,}"
                        + (", with as_of and source." if kind == "spot" else ".")
                    )


def estimate_price(
    table: Mapping[str, Any],
    provider: str,
    settings: CloudSettings,
    *,
    nodes: int,
) -> Price:
    """Return what `nodes` nodes cost an hour.

    Args:
        table: as :func:`read_prices` gives it.
    """
    prices = table[provider]
    machine = prices["machines"].get(settings.machine_type)
    unknown = "" if machine is not None else settings.machine_type
    gpus_usd = 0.0
    if settings.gpu_type is not None:
        gpu = prices.get("gpus", {}).get(settings.gpu_type)
        unknown = unknown or ("" if gpu is not None else settings.gpu_type)
        gpus_usd = (gpu or 0.0) * (settings.gpus_per_node or 1)
    disks_usd = nodes * settings.disk_gb * prices["disk_gb_month"] / HOURS_PER_MONTH
    if settings.shared_disk and provider == "gcp":
        disks_usd += FILESTORE_GB * prices["shared_gb_month"] / HOURS_PER_MONTH
    running_usd = nodes * ((machine or 0.0) + gpus_usd + prices["public_address"]) + disks_usd
    return Price(
        usd_per_hour=None if unknown else running_usd,
        as_of=str(table["as_of"]),
        is_upper_bound=settings.spot,  # spot prices move; they stay below those on demand
        unknown=unknown,
    )


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(base[key], value)
        for key, value in own.items()
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
    }
    return {**base, **own, **both}
