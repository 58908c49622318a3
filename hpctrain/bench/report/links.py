"""What the all-reduces of a measurement say: bandwidths, and the link that they amount to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hpctrain.bench.report.result import BusPoint, LinkRow

if TYPE_CHECKING:
    from hpctrain.bench.allreduce.results import AllreduceResult
    from hpctrain.scaling_model.links import LinkFit

GIGA = 1e9
UNSEEN = 1e14
"""Bytes/s from which on a fit saw no bandwidth: all that it was given is latency."""


def list_bus_points(allreduces: Mapping[str, AllreduceResult]) -> tuple[BusPoint, ...]:
    """Return every all-reduce, by placement, backend and size as they were measured."""
    return tuple(
        BusPoint(
            placement=name, backend=point.backend, bytes_=point.bytes_,
            median_s=point.median_s, busbw_gb_per_s=point.busbw_gb_per_s,
        )
        for name, result in allreduces.items()
        for point in result.points
    )  # fmt: skip


def fit_link_rows(allreduces: Mapping[str, AllreduceResult]) -> tuple[LinkRow, ...]:
    """Return the fitted link of each placement and backend that has three sizes or more."""
    from hpctrain.bench.allreduce.results import fit_links

    return tuple(
        _row(placement, backend, fit)
        for placement, result in allreduces.items()
        for backend, fit in fit_links(result).items()
    )


def _row(placement: str, backend: str, fit: LinkFit) -> LinkRow:
    bandwidth = fit.link.bandwidth_bytes_per_s
    sizes = [bytes_ for bytes_, _ in fit.points]
    return LinkRow(
        placement=placement, backend=backend,
        latency_s=fit.link.latency_s, handshake_s=fit.link.handshake_s,
        bandwidth_gb_per_s=bandwidth / GIGA if bandwidth < UNSEEN else None,
        error=fit.link.error, source=fit.link.source,
        residuals=tuple(zip(sizes, fit.residuals, strict=True)),
    )  # fmt: skip
