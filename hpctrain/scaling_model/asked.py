"""From what was typed for `hpctrain bench predict` to a step and topologies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpctrain.config import Config, load_config
from hpctrain.errors import BenchError, ConfigError, raise_all
from hpctrain.scaling_model.counts import parse_counts
from hpctrain.scaling_model.instances import Instance, as_line_rate, find_instance, published_link
from hpctrain.scaling_model.links import Link, parse_link
from hpctrain.scaling_model.planned import plan_step_model
from hpctrain.scaling_model.step import StepModel
from hpctrain.scaling_model.topology import Topology

DEFAULT_MODEL, DEFAULT_GPU, DEFAULT_GPUS_PER_NODE = "xlarge", "a100", 8
DEFAULT_SEQUENCES = 8
# NVLink 3 between two A100: 300 GB/s each way (NVIDIA A100 data sheet), 3.4 us a hop (NCCL).
DEFAULT_INTRA_GBIT, DEFAULT_INTRA_LATENCY_S = 2400.0, 3.4e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictAsked:
    """The options, as typed; None where not given."""

    nodes: str
    gpus_per_node: int | None = None
    instance: str | None = None
    link: str | None = None
    intra_link: str | None = None
    model: str | None = None
    config_name: str | None = None
    overrides: tuple[str, ...] = ()
    gpu: str | None = None
    mfu: float | None = None
    accum: int | None = None
    compression: str | None = None
    bench_dir: Path | None = None


def plan_prediction(asked: PredictAsked) -> tuple[StepModel, tuple[Topology, ...]]:
    """Return the step and a topology for each number of nodes.

    Raises:
        ConfigError: options are missing, wrong or against each other; all of them are named.
        BenchError: the measurement cannot be used.
    """
    errors = _check(asked)
    counts: tuple[int, ...] = ()
    try:
        counts = parse_counts(asked.nodes)
    except ConfigError as error:
        errors += error.messages
    raise_all(ConfigError, errors)
    if asked.bench_dir is not None:
        from hpctrain.scaling_model.from_bench import calibrate_from_bench

        measured = calibrate_from_bench(asked.bench_dir)
        step, ranks, algorithm = measured.step, measured.ranks_per_node, measured.algorithm
        inter, intra = measured.inter, measured.intra
        step = _adjusted(step, asked)
    else:
        step, ranks, inter, intra, algorithm = _plan_unmeasured(asked)
    if asked.link or asked.instance:
        inter = _inter_link(asked, _instance(asked))
    if inter is None:
        raise BenchError(
            f"{asked.bench_dir}: no all-reduce between nodes was measured there, got none; "
            "expected one. Give the network: --link 100gbit,20us, or --instance."
        )
    ranks = asked.gpus_per_node or ranks
    topologies = [Topology(count, ranks, inter, intra or inter, algorithm) for count in counts]
    return step, tuple(topologies)


def _check(asked: PredictAsked) -> list[str]:
    errors = []
    if asked.bench_dir is None and (asked.instance is None) == (asked.link is None):
        got = "both" if asked.instance else "none"
        errors.append(
            f"--instance, --link: {got} of them is given, got {got}; expected one. "
            "Say what connects the nodes: --instance p4d.24xlarge, or --link 100gbit,20us."
        )
    if asked.model is not None and asked.config_name is not None:
        errors.append(
            f"--model, --config: both are given, got {asked.model} and {asked.config_name}; "
            "expected one. Use --set model.preset=… with --config."
        )
    if asked.bench_dir is not None:
        fixed = {"--model": asked.model, "--config": asked.config_name, "--gpu": asked.gpu,
                 "--mfu": asked.mfu}  # fmt: skip
        errors += [
            f"{name}: cannot be given with --from, got {value}; expected none. The measurement "
            "has it: leave it out."
            for name, value in fixed.items()
            if value is not None
        ]
    return errors


def _plan_unmeasured(asked: PredictAsked) -> tuple[StepModel, int, Link, Link, str]:
    from hpctrain.train.presets import resolve_model

    instance = _instance(asked)
    config = _load(asked)
    train, comm = config.train, config.comm
    accum = asked.accum or train.grad_accum_steps
    per_step = train.batch_size_per_rank
    step = plan_step_model(
        resolve_model(config.model),
        gpu=asked.gpu or (instance.gpu if instance else DEFAULT_GPU),
        precision=train.precision if asked.config_name else "bf16",
        mfu=asked.mfu,
        # A configuration's batch is a step's, which its own accumulation splits.
        sequences=max(1, per_step // train.grad_accum_steps) if per_step else DEFAULT_SEQUENCES,
        accum=accum,
        bucket_mb=comm.bucket_mb,
        compression=asked.compression or comm.compression,
    )
    if instance is not None:
        ranks, intra = instance.gpus, instance.intra
    else:
        ranks = DEFAULT_GPUS_PER_NODE
        intra = published_link(DEFAULT_INTRA_LATENCY_S, DEFAULT_INTRA_GBIT, "NVLink 3")
    if asked.intra_link:
        intra = as_line_rate(parse_link(asked.intra_link, "--intra-link"))
    return step, ranks, _inter_link(asked, instance), intra, "nccl"


def _load(asked: PredictAsked) -> Config:
    overrides: Sequence[str] = asked.overrides
    if asked.config_name is None:
        overrides = (f"model.preset={asked.model or DEFAULT_MODEL}", *overrides)
        return load_config(None, overrides)
    from hpctrain.recipes import find_recipe

    return load_config(find_recipe(asked.config_name), overrides)


def _instance(asked: PredictAsked) -> Instance | None:
    return find_instance(asked.instance) if asked.instance else None


def _inter_link(asked: PredictAsked, instance: Instance | None) -> Link:
    if instance is not None:
        return instance.link
    return as_line_rate(parse_link(asked.link or ""))


def _adjusted(step: StepModel, asked: PredictAsked) -> StepModel:
    """Return a measured step with what is asked to be otherwise."""
    if asked.accum is not None:
        step = replace(step, accum=asked.accum)
    if asked.compression == "fp16":
        halved = tuple(replace(bucket, bytes_=bucket.bytes_ / 2) for bucket in step.buckets)
        step = replace(step, buckets=halved)
    return step
