"""Where a preflight's price comes from: who pays, the cluster's record, or the cloud's list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpctrain.errors import HpctrainError
from hpctrain.preflight.cost import Price, describe_cost, find_price, plan_stake
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.verdict import FAIL, Verdict


def with_cost(
    fleet: Fleet, verdicts: list[Verdict], cluster: str | None, usd_per_hour: float | None,
    environ: Mapping[str, str],
) -> list[Verdict]:  # fmt: skip
    """Return the verdicts, behind failures with what they would have cost where that is known.

    Args:
        cluster: the name given by --cluster.
        usd_per_hour: of all hosts, given by --usd-per-hour.
    """
    if not any(verdict.status == FAIL for verdict in verdicts):
        return verdicts
    price = _price(fleet, cluster, usd_per_hour, environ)
    told = describe_cost(verdicts, plan_stake(fleet, fleet.facts.get("need")), price)
    return [*verdicts, told] if told else verdicts


def _price(
    fleet: Fleet, cluster: str | None, usd_per_hour: float | None, environ: Mapping[str, str]
) -> Price | None:
    if usd_per_hour is not None:
        return Price(usd_per_hour=usd_per_hour, what="as --usd-per-hour says")
    try:
        if cluster is not None:
            from hpctrain.bench.scaling.price import cluster_price
            from hpctrain.clusters.overview import read_cluster

            found = cluster_price(read_cluster(cluster, environ, "--cluster")[1])
            if found is not None:
                what = f"{found['what']}, as of {found['as_of']}"
                return Price(usd_per_hour=found["value"], what=what)
        from hpctrain.clusters.cloud.prices import read_prices

        return find_price(fleet, _cloud(fleet), read_prices())
    except HpctrainError:
        return None  # what is wrong with a cluster is told elsewhere


def _cloud(fleet: Fleet) -> str | None:
    """Return the cloud that all hosts are in."""
    seen: Sequence[str | None] = [
        value["facts"]["cloud"] for value in fleet.answers_of("machine").values()
    ]
    return seen[0] if seen and len(set(seen)) == 1 else None
