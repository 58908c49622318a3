"""From what was typed for `hpctrain bench predict` to a step and topologies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hpctrain.config import Config, load_config
from hpctrain.errors import BenchError, ConfigError
from hpctrain.estimate.asked import Errors
from hpctrain.estimate.gpus import Gpu, find_gpu
from hpctrain.estimate.nodes import NodeKind, find_node_kind
from hpctrain.scaling_model.counts import parse_counts
from hpctrain.scaling_model.instances import as_line_rate
from hpctrain.scaling_model.links import Link, parse_link
from hpctrain.scaling_model.planned import check_mfu, plan_step_model
from hpctrain.scaling_model.step import WIRE_FACTORS, StepModel
from hpctrain.scaling_model.topology import Topology
from hpctrain.train.presets import ModelSize, resolve_model

DEFAULT_MODEL, DEFAULT_GPU, DEFAULT_GPUS_PER_NODE = "xlarge", "a100", 8
DEFAULT_SEQUENCES = 8


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What was said of the network; None where nothing was."""

    kind: NodeKind | None
    inter: Link | None
    intra: Link | None


def plan_prediction(asked: PredictAsked) -> tuple[StepModel, tuple[Topology, ...]]:
    """Return the step and a topology for each number of nodes.

    Raises:
        ConfigError: options are missing, wrong or against each other; all of them are named.
        BenchError: the measurement cannot be used.
    """
    errors = Errors(_check(asked))
    counts = errors.attempt(parse_counts, asked.nodes)
    network = _read_network(asked, errors)
    if asked.bench_dir is not None:
        errors.raise_all()
        step, template = _plan_measured(asked, asked.bench_dir, network)
    else:
        planned = _plan_unmeasured(asked, network, errors)
        errors.raise_all()
        assert planned is not None  # else an error was raised
        step, template = planned
    assert counts is not None
    ranks = asked.gpus_per_node or template.ranks_per_node
    return step, tuple(replace(template, nodes=n, ranks_per_node=ranks) for n in counts)


def _check(asked: PredictAsked) -> list[str]:
    errors = []
    both = asked.instance is not None and asked.link is not None
    if both or (asked.bench_dir is None and asked.instance is None and asked.link is None):
        got = "both" if both else "none"
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
                 "--mfu": asked.mfu, "--set": " ".join(asked.overrides) or None}  # fmt: skip
        errors += [
            f"{name}: cannot be given with --from, got {value}; expected none. The measurement "
            "has it: leave it out."
            for name, value in fixed.items()
            if value is not None
        ]
    return errors


def _read_network(asked: PredictAsked, errors: Errors) -> Network:
    kind = errors.attempt(find_node_kind, asked.instance) if asked.instance else None
    link = errors.optional(parse_link, asked.link, "--link")
    within = errors.optional(parse_link, asked.intra_link, "--intra-link")
    inter = as_line_rate(link) if link else None
    return Network(
        kind=kind,
        inter=kind.inter if kind else inter,
        intra=as_line_rate(within) if within else None,
    )


def _plan_measured(
    asked: PredictAsked, folder: Path, network: Network
) -> tuple[StepModel, Topology]:
    """Return a measured step, and its topology on one node, with what is asked to be otherwise."""
    from hpctrain.scaling_model.from_bench import calibrate_from_bench

    measured = calibrate_from_bench(folder)
    inter = network.inter or measured.inter
    if inter is None:
        raise BenchError(
            f"{folder}: no all-reduce between nodes was measured there, got none; "
            "expected one. Give the network: --link 100gbit,20us, or --instance."
        )
    rented = network.kind.intra if network.kind else None
    intra = network.intra or measured.intra or rented or inter
    step = adjust_step(measured.step, measured.compression, asked.accum, asked.compression)
    return step, Topology(1, measured.ranks_per_node, inter, intra, measured.algorithm)


def adjust_step(
    step: StepModel, measured_compression: str, accum: int | None, compression: str | None
) -> StepModel:
    """Return a measured step with another accumulation or compression; None: as measured."""
    if accum is not None:
        step = replace(step, accum=accum)
    if compression is not None:
        factor = WIRE_FACTORS[compression] / WIRE_FACTORS[measured_compression]
        buckets = tuple(replace(one, bytes_=one.bytes_ * factor) for one in step.buckets)
        step = replace(step, buckets=buckets)
    return step


def _plan_unmeasured(
    asked: PredictAsked, network: Network, errors: Errors
) -> tuple[StepModel, Topology] | None:
    """Return a step from published figures, and its topology on one node; None with errors."""
    kind = network.kind
    gpu = None
    if asked.gpu or kind or not asked.instance:  # of an unknown machine no GPU is known
        gpu = errors.attempt(_choose_gpu, asked, kind)
    config = errors.attempt(_load, asked, gpu)
    size = errors.attempt(resolve_model, config.model) if config else None
    if gpu is None or config is None or size is None:
        errors.attempt(check_mfu, asked.mfu)
        return None
    step = errors.attempt(_plan_step, asked, config, size, gpu)
    if step is None or network.inter is None:
        return None
    intra = network.intra or (kind.intra if kind else gpu.between)
    ranks = kind.gpus if kind else DEFAULT_GPUS_PER_NODE
    return step, Topology(1, ranks, network.inter, intra, "nccl")


def _choose_gpu(asked: PredictAsked, kind: NodeKind | None) -> Gpu:
    if kind is None:
        return find_gpu(asked.gpu or DEFAULT_GPU)
    if asked.gpu is not None and find_gpu(asked.gpu).name != kind.gpu.name:
        raise ConfigError(
            f"--gpu, --instance: they disagree, got {asked.gpu} and {kind.name}, which has "
            f"{kind.gpu.name}; expected one of them. Leave out --gpu."
        )
    return kind.gpu


def _load(asked: PredictAsked, gpu: Gpu | None) -> Config:
    if asked.config_name is None:
        # A preset's precision is the GPU's best; what --set has comes later and counts.
        precision = [f"train.precision={gpu.best_precision}"] if gpu else []
        preset = f"model.preset={asked.model or DEFAULT_MODEL}"
        return load_config(None, (preset, *precision, *asked.overrides))
    from hpctrain.recipes import find_recipe

    return load_config(find_recipe(asked.config_name), asked.overrides)


def _plan_step(asked: PredictAsked, config: Config, size: ModelSize, gpu: Gpu) -> StepModel:
    train, comm = config.train, config.comm
    per_step = train.batch_size_per_rank
    return plan_step_model(
        size,
        gpu=gpu.name,
        precision=train.precision,
        mfu=asked.mfu,
        # A configuration's batch is a step's, which its own accumulation splits.
        sequences=max(1, per_step // train.grad_accum_steps) if per_step else DEFAULT_SEQUENCES,
        accum=asked.accum or train.grad_accum_steps,
        bucket_mb=comm.bucket_mb,
        compression=asked.compression or comm.compression,
    )
