"""How fast will it train? A GPU's own rate from its MFU, the rest from the scaling model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hpctrain.config import Config
from hpctrain.errors import ConfigError
from hpctrain.estimate.gpus import Gpu
from hpctrain.estimate.load import RankLoad
from hpctrain.estimate.mfu import MfuFigure
from hpctrain.estimate.model import cost_model
from hpctrain.estimate.sharding import gather_s, reduce_scattered
from hpctrain.scaling_model.links import Link
from hpctrain.scaling_model.planned import (
    ASSUMED_JITTER,
    HOROVOD_CYCLE_S,
    WIRE_FACTORS,
    plan_transformer_buckets,
)
from hpctrain.scaling_model.predict import predict_parts
from hpctrain.scaling_model.step import StepModel
from hpctrain.scaling_model.topology import Topology
from hpctrain.train.presets import ModelSize

# Forward is a third of the FLOPs (2·N of 6·N); blocks that are computed again add that third.
FORWARD_SHARE = 1 / 3
RECOMPUTING = 4 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Equal nodes.

    Args:
        inter: a node's way to the others; `intra` between two of its GPUs.
        instance: the vendor's name of a node; None for one's own.
    """

    gpu: Gpu
    nodes: int
    gpus_per_node: int
    inter: Link
    intra: Link
    instance: str | None = None

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    @property
    def shape_words(self) -> str:
        """What one node has, for people."""
        return f"{self.gpus_per_node} x {self.gpu.name}"

    @property
    def topology(self) -> Topology:
        return Topology(self.nodes, self.gpus_per_node, self.inter, self.intra)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is to be trained.

    Args:
        global_sequences: of a step over all ranks, where it was asked for; else every rank has
            `rank_sequences`, however many there are.
    """

    size: ModelSize
    tokens: int
    precision: str
    global_sequences: int | None
    rank_sequences: int
    accum: int
    recomputes: bool
    sharded: bool
    compression: str
    bucket_mb: float
    compiled: bool = False

    def sequences_per_rank(self, gpus: int) -> int:
        """Return the most that a rank has in a step.

        Raises:
            ConfigError: there are fewer sequences than ranks.
        """
        if self.global_sequences is None:
            return self.rank_sequences
        if self.global_sequences < gpus:
            raise ConfigError(
                f"--global-batch: fewer sequences than GPUs, got {self.global_sequences} for "
                f"{gpus}; expected at least {gpus}. Take fewer GPUs or a larger batch."
            )
        return -(-self.global_sequences // gpus)

    def load(self, gpus: int) -> RankLoad:
        """Return what one of so many ranks computes with."""
        sequences = self.sequences_per_rank(gpus)
        return RankLoad(
            micro_batch=-(-sequences // self.accum), sequences=sequences,
            precision=self.precision, ranks=gpus, recomputes=self.recomputes,
            sharded=self.sharded, compression=self.compression,
        )  # fmt: skip

    def tokens_per_step(self, gpus: int) -> int:
        """Return the tokens of a step, all ranks together."""
        sequences = self.global_sequences or gpus * self.rank_sequences
        return sequences * self.size.seq_len


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """A predicted rate.

    Args:
        efficiency: of the rate of so many GPUs without any exchange, 0 to 1.
        exposed_s: of a step, what the exchange does not hide behind backward.
        gather_s: of a step, until a sharded optimizer's weights are everywhere; never hidden.
        waiting_s: of a step, for the slowest rank.
        ceiling_tokens_per_s: at 100 % MFU, without any exchange.
    """

    tokens_per_s: float
    step_s: float
    compute_s: float
    exposed_s: float
    gather_s: float
    waiting_s: float
    efficiency: float
    tokens_per_step: int
    ceiling_tokens_per_s: float


def job_of(config: Config, size: ModelSize, tokens: int, default_rank_sequences: int) -> Job:
    """Return the job that a configuration describes."""
    train = config.train
    return Job(
        size=size, tokens=tokens, precision=train.precision,
        global_sequences=train.global_batch_size,
        rank_sequences=train.batch_size_per_rank or default_rank_sequences,
        accum=train.grad_accum_steps, recomputes=train.activation_checkpointing,
        sharded=config.optim.sharded, compression=config.comm.compression,
        bucket_mb=config.comm.bucket_mb, compiled=train.compile,
    )  # fmt: skip


def predict_speed(job: Job, cluster: Cluster, mfu: MfuFigure) -> Speed:
    """Return how fast a cluster trains.

    Raises:
        ConfigError: there are fewer sequences than GPUs.
        AssertionError: the GPU has no such precision; that is refused before.
    """
    peak = cluster.gpu.peak_flops(job.precision)
    assert peak is not None
    step = model_step(job, cluster, mfu)
    parts = predict_parts(step, cluster.topology)
    tokens = job.tokens_per_step(cluster.gpus)
    gathering_s = gather_of(job, cluster.topology)
    step_s = parts.step_s + gathering_s
    return Speed(
        tokens_per_s=tokens / step_s,
        step_s=step_s,
        compute_s=step.alone_s,
        exposed_s=parts.exposed_comm_s,
        gather_s=gathering_s,
        waiting_s=parts.waiting_s,
        efficiency=step.alone_s / step_s,
        tokens_per_step=tokens,
        ceiling_tokens_per_s=cluster.gpus * peak / cost_model(job.size).flops_per_token,
    )


def model_step(job: Job, cluster: Cluster, mfu: MfuFigure) -> StepModel:
    """Return one rank's step: its compute by the MFU, its buckets by the parameters.

    Gradients travel in fp32, or in 16 bits with comm.compression. With a sharded optimizer that is
    a reduce-scatter; what it gathers later is :func:`gather_of`.
    """
    peak = cluster.gpu.peak_flops(job.precision)
    assert peak is not None
    sequences = job.sequences_per_rank(cluster.gpus)
    accum = min(job.accum, sequences)
    flops = sequences * job.size.seq_len * cost_model(job.size).flops_per_token
    again = RECOMPUTING if job.recomputes and not mfu.recomputed else 1.0
    micro_s = flops / accum / (peak * mfu.value)
    buckets = plan_transformer_buckets(job.size, job.bucket_mb, WIRE_FACTORS[job.compression])
    return StepModel(
        data_s=0.0,
        forward_s=micro_s * FORWARD_SHARE,
        backward_s=micro_s * (again - FORWARD_SHARE),
        optimizer_s=0.0,  # inside the MFU
        buckets=reduce_scattered(buckets) if job.sharded else buckets,
        jitter_cv=ASSUMED_JITTER, accum=accum, cycle_s=HOROVOD_CYCLE_S, negotiates=True,
        error=mfu.error, source=f"MFU {mfu.value:.0%}, {mfu.kind}",
    )  # fmt: skip


def gather_of(job: Job, topology: Topology) -> float:
    """Return what a step waits until every rank has the whole weights; 0 without sharding."""
    if not job.sharded or topology.n == 1:
        return 0.0
    return gather_s(plan_transformer_buckets(job.size, job.bucket_mb), topology)


def accumulation_for(job: Job, cluster: Cluster, mfu: MfuFigure, efficiency: float) -> int | None:
    """Return how many micro-batches a step needs to be so efficient; the micro-batch stays.

    The exchange exposes as much whatever the step, and the slowest rank is waited for in proportion
    to the computing: accum·(1/efficiency - 1 - waiting) ≥ exposed, both in micro-batches. None
    where waiting alone is too much.
    """
    step = model_step(with_accumulation(job, cluster, 1), cluster, mfu)
    parts = predict_parts(step, cluster.topology)
    room = 1 / efficiency - 1 - parts.waiting_s / step.alone_s
    if room <= 0:
        return None
    waits_s = parts.exposed_comm_s + gather_of(job, cluster.topology)
    return max(1, math.ceil(waits_s / step.alone_s / room - 1e-9))


def with_accumulation(job: Job, cluster: Cluster, accum: int) -> Job:
    """Return the job with so many micro-batches a step, each as large as before."""
    micro_batch = job.load(cluster.gpus).micro_batch
    return replace(job, accum=accum, global_sequences=None, rank_sequences=accum * micro_batch)
