"""How much a step sends: the bytes that leave each rank for the gradients' sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FP32_BYTES = 4
GRADIENT_BYTES = {"none": 4, "fp16": 2, "bf16": 2}
"""Of one gradient on its way, by `comm.compression`; weights and gradients are fp32 always."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExchangeSettings:
    """What of the configuration decides how much is sent, and when."""

    compression: str = "none"
    sharded: bool = False
    backend: str = "horovod"
    bucket_mb: float = 25.0
    grad_accum_steps: int = 1


def read_exchange_settings(config: Mapping[str, Any]) -> ExchangeSettings:
    """Return the settings out of a configuration's tables; the defaults where it has none.

    >>> read_exchange_settings({"comm": {"compression": "fp16"}}).compression
    'fp16'
    """
    comm, optim = config.get("comm") or {}, config.get("optim") or {}
    known = {name: comm[name] for name in ("compression", "backend", "bucket_mb") if name in comm}
    accum = (config.get("train") or {}).get("grad_accum_steps", 1)
    return ExchangeSettings(
        **known, sharded=bool(optim.get("sharded", False)), grad_accum_steps=accum
    )


def gradient_bytes(params: int, settings: ExchangeSettings) -> int:
    """Return the bytes of all gradients as they travel."""
    return params * GRADIENT_BYTES[settings.compression]


def wire_bytes(params: int | None, np: int, settings: ExchangeSettings) -> int | None:
    """Return the bytes that each rank sends in one optimizer step; None where unknown.

    A ring all-reduce of S bytes sends 2(n-1)/n · S (Patarasuk and Yuan 2009, "Bandwidth optimal
    all-reduce algorithms for clusters of workstations"; nccl-tests, doc/PERFORMANCE.md): half of it
    in its reduce-scatter, half in its all-gather. Sharded, the second half are parameters, fp32.

    >>> wire_bytes(1_000_000, 4, ExchangeSettings())
    6000000
    >>> wire_bytes(1_000_000, 4, ExchangeSettings(compression="fp16"))
    3000000
    """
    if params is None:
        return None
    if np == 1 or settings.backend == "none":
        return 0
    sent = gradient_bytes(params, settings)
    back = params * FP32_BYTES if settings.sharded else sent
    return round((np - 1) * (sent + back) / np)
