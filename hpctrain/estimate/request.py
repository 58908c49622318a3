"""What was typed → job, cluster, assumptions and goals, with every error at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hpctrain.clusters.cloud.prices import read_prices
from hpctrain.config import Config
from hpctrain.errors import ConfigError
from hpctrain.estimate.asked import Asked, Errors, read_config, read_job
from hpctrain.estimate.gpus import Gpu, find_gpu
from hpctrain.estimate.measured import Wanted, choose_mfu
from hpctrain.estimate.mfu import MfuFigure, require_mfu
from hpctrain.estimate.model import cost_model
from hpctrain.estimate.nodes import NodeKind, find_node_kind, plan_cluster
from hpctrain.estimate.plan import DEFAULT_STORAGE_BYTES_PER_S, Assumptions
from hpctrain.estimate.quantities import (
    check_count,
    parse_count,
    parse_duration_s,
    parse_share,
    parse_usd,
    parse_usd_or_none_to_pay,
    read_link,
)
from hpctrain.estimate.smallest import Goals
from hpctrain.estimate.speed import Cluster, Job

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is to be estimated; `config` as it was read."""

    job: Job
    cluster: Cluster
    assumptions: Assumptions
    goals: Goals
    config: Config


def resolve_request(asked: Asked) -> Request:
    """Return what is meant.

    Raises:
        ConfigError: naming everything that is wrong or missing.
        BenchError: a measured run that would be taken claims over 100 % MFU.
    """
    errors = Errors()
    asked = check_counts(asked, errors)
    kind = errors.attempt(find_node_kind, asked.instance) if asked.instance else None
    gpu = errors.attempt(_choose_gpu, asked.gpu, kind, asked.instance)
    cluster = None
    if asked.gpus is None and kind is None:
        errors.messages.append(
            "--gpus: not given, got none; expected how many in all. Write e.g. --gpus 8."
        )
    elif gpu is not None:
        cluster = errors.attempt(
            plan_cluster, gpu, asked.gpus, asked.gpus_per_node, kind, asked.link, asked.intra_link
        )
    elif asked.link is not None:
        errors.attempt(read_link, asked.link)
    config = errors.attempt(read_config, asked, gpu)
    goals = read_goals(asked, errors)
    gpus = cluster.gpus if cluster else asked.gpus or 1
    job = errors.attempt(read_job, asked, config, gpus) if config else None
    _check_what_is_left(asked, errors, job if gpu else None)
    table = errors.attempt(read_prices, asked.prices)
    assumptions = None
    if job is not None and gpu is not None and table is not None:
        assumptions = errors.attempt(read_assumptions, asked, job, gpu, table)
    if job is not None and cluster is not None:
        errors.attempt(check_split, asked, job, cluster.gpus)
    if config is not None and cluster is not None:
        errors.attempt(check_exchange, config, cluster.gpus)
    errors.raise_all()
    assert job is not None  # else an error was raised; and so on
    assert cluster is not None
    assert assumptions is not None
    assert config is not None
    return Request(job=job, cluster=cluster, assumptions=assumptions, goals=goals, config=config)


def _check_what_is_left(asked: Asked, errors: Errors, job: Job | None) -> None:
    """Check what is else told with job and assumptions, where those are not read."""
    if job is None:
        errors.optional(parse_count, asked.tokens, "--tokens")
        errors.optional(parse_share, asked.mfu, "--mfu")
        errors.optional(parse_usd_or_none_to_pay, asked.usd_per_gpu_hour, "--usd-per-gpu-hour")
        errors.optional(read_link, asked.storage, "--storage")


def check_counts(asked: Asked, errors: Errors) -> Asked:
    """Return what was typed, its numbers of GPUs and micro-batches within what there can be.

    A number that is too large goes to `errors`, and 1 goes on in its place.
    """
    most = {"gpus": 10**6, "gpus_per_node": 1024, "accum": 10**9}
    for name, limit in most.items():
        value = getattr(asked, name)
        where = f"--{name.replace('_', '-')}"
        if value is not None and errors.attempt(check_count, value, where, limit) is None:
            asked = replace(asked, **{name: 1})
    return asked


def check_split(asked: Asked, job: Job, gpus: int) -> None:
    """Raise if a step's sequences cannot be cut so.

    Raises:
        ConfigError: there are fewer sequences than GPUs, or fewer a GPU than --accum.
    """
    sequences = job.sequences_per_rank(gpus)
    if asked.accum is not None and asked.accum > sequences:
        raise ConfigError(
            f"--accum: a GPU has fewer sequences a step, got {asked.accum} for {sequences}; "
            f"expected 1 to {sequences}. Take a larger --global-batch, at least "
            f"{asked.accum * gpus}."
        )


def check_exchange(config: Config, gpus: int) -> None:
    """Raise if the configuration exchanges nothing between several GPUs.

    Raises:
        ConfigError: it does not.
    """
    if config.comm.backend == "none" and gpus > 1:
        raise ConfigError(
            f"comm.backend: nothing is exchanged, so {gpus} GPUs train {gpus} models, got none; "
            "expected horovod or ddp. Set comm.backend=horovod, or ask for --gpus 1."
        )


def read_goals(asked: Asked, errors: Errors) -> Goals:
    """Return the goals; what is wrong goes to `errors`."""
    return Goals(
        deadline_s=errors.optional(parse_duration_s, asked.deadline, "--deadline"),
        budget_usd=errors.optional(parse_usd, asked.budget, "--budget"),
        tokens_per_s=errors.optional(parse_count, asked.tokens_per_s, "--tokens-per-s"),
        efficiency=errors.optional(parse_share, asked.efficiency, "--efficiency"),
    )


def chooses_accum(asked: Asked) -> bool:
    """Return whether nobody has said how many micro-batches a step has."""
    said = any("grad_accum_steps" in override for override in asked.overrides)
    return asked.accum is None and asked.config_name is None and not said


def read_assumptions(asked: Asked, job: Job, gpu: Gpu, prices: dict[str, Any]) -> Assumptions:
    """Return the MFU for this GPU and what else is assumed.

    Raises:
        ConfigError: the GPU lacks the precision, no MFU is known, or an option is wrong.
        BenchError: a measured run that would be taken claims over 100 % MFU.
    """
    errors = Errors()
    if gpu.peak_flops(job.precision) is None:
        has = [name for name in ("bf16", "fp16", "tf32", "fp32") if gpu.peak_flops(name)]
        errors.messages.append(
            f"--precision: {gpu.name} has no {job.precision}, got {job.precision}; expected one of "
            f"{', '.join(has)}."
        )
    usd = errors.optional(parse_usd_or_none_to_pay, asked.usd_per_gpu_hour, "--usd-per-gpu-hour")
    storage = DEFAULT_STORAGE_BYTES_PER_S
    if asked.storage is not None:
        link = errors.attempt(read_link, asked.storage, "--storage")
        storage = link.bandwidth_bytes_per_s if link else storage
    given = errors.optional(parse_share, asked.mfu, "--mfu")
    params = cost_model(job.size).params
    figure = MfuFigure(value=given or 1.0, kind="given", source="--mfu", recomputed=True)
    if asked.mfu is None and not errors.messages:
        wanted = Wanted(
            gpu=gpu, params=params, precision=job.precision, seq_len=job.size.seq_len,
            compiled=job.compiled,
        )  # fmt: skip
        found = choose_mfu(wanted, asked.runs_dir)
        figure = errors.attempt(require_mfu, gpu, params, job.precision, found) or figure
    errors.raise_all()
    return Assumptions(
        mfu=figure, prices=prices, usd_per_gpu_hour=usd, storage_bytes_per_s=storage,
        chooses_accum=chooses_accum(asked),
        chooses_shape=asked.gpus_per_node is None and asked.instance is None,
    )  # fmt: skip


def _choose_gpu(name: str | None, kind: NodeKind | None, instance: str | None) -> Gpu:
    if name is None and kind is None:
        wrong = "" if instance is None else " (--instance is unknown)"
        raise ConfigError(
            f"--gpu: not given{wrong}, got none; expected a kind of GPU or an --instance. "
            "Write e.g. --gpu a100-80gb."
        )
    gpu = find_gpu(name) if name is not None else kind.gpu if kind else None
    assert gpu is not None
    if kind is not None and kind.gpu.name != gpu.name:
        raise ConfigError(
            f"--gpu: {kind.name} has another, got {gpu.name}; expected {kind.gpu.name}. Leave "
            "--gpu out."
        )
    return gpu
