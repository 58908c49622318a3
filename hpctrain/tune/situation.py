"""What the choice of knobs depends on, from a planned run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpctrain.config import Config
from hpctrain.facts import Facts
from hpctrain.horovod_stamp import read_horovod_stamp
from hpctrain.launch.plan import LaunchPlan
from hpctrain.launch.prepare import Prepared
from hpctrain.train.presets import count_parameters, resolve_model
from hpctrain.tune.knobs import TuneFacts
from hpctrain.tune.tuned_file import given_tables


def find_tune_facts(
    config: Config, plan: LaunchPlan, facts: Facts, prepared: Prepared, environ: Mapping[str, str]
) -> TuneFacts:
    """Return what the choice of knobs depends on; pure but for Horovod's stamp."""
    names = [place.host for place in plan.placement]
    known = [facts.of(name) for name in names]
    shares = [
        max(1, host.cores // place.ranks)
        for host, place in zip(known, plan.placement, strict=True)
        if host is not None
    ]
    native = config.comm.exchange == "native" or (
        config.comm.exchange == "auto" and config.comm.backend == "ddp" and not config.optim.sharded
    )
    own_model = config.model.factory is not None
    stamp = read_horovod_stamp()
    return TuneFacts(
        np=plan.np,
        nodes=len(names),
        cores_per_rank=min(shares) if len(shares) == len(names) else None,
        mpi_flavour=facts.mpi_flavour,
        backend=config.comm.backend,
        exchange="native" if native else "buckets",
        uses_gpus=not prepared.request.counts_cores and facts.any_gpus(names),
        has_nccl=stamp is None or stamp.nccl is not None,
        has_rdma=any(host.rdma_ports for host in known if host is not None),
        gradient_bytes=None if own_model else 4 * count_parameters(resolve_model(config.model)),
        given=flat_settings(given_tables(config)),
        shell=frozenset(environ),
    )


def flat_settings(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``section.key`` → value, tables in sections as ``section.key.name``."""
    flat: dict[str, Any] = {}
    for section, values in tables.items():
        for key, value in values.items():
            if isinstance(value, Mapping):
                flat |= {f"{section}.{key}.{name}": inner for name, inner in value.items()}
            else:
                flat[f"{section}.{key}"] = value
    return flat
