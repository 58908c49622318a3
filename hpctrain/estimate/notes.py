"""What a reader of an estimate should know about it, besides its figures."""

from __future__ import annotations

from collections.abc import Iterator

from hpctrain.config import Config
from hpctrain.estimate.accumulation import hint_accumulation
from hpctrain.estimate.load import SIXTEEN_BIT
from hpctrain.estimate.plan import Estimate
from hpctrain.estimate.smallest import Goals
from hpctrain.estimate.verdict import GOOD_EFFICIENCY

WIDE_AREA_LATENCY_S = 5e-3  # one way; within a site it is 100 times less


def notes_on(estimate: Estimate, config: Config, goals: Goals) -> Iterator[str]:
    """Yield what is assumed against the configuration, disputed, or better than seen anywhere."""
    gpu, job, mfu = estimate.cluster.gpu, estimate.job, estimate.assumptions.mfu
    peak = gpu.peak_flops(job.precision) or 1.0
    if (
        gpu.achievable_flops
        and job.precision in SIXTEEN_BIT
        and mfu.value > gpu.achievable_flops / peak
    ):
        yield (
            f"warning: an MFU of {mfu.value:.0%} is above what matrix products alone were measured "
            f"at on {gpu.name}, {gpu.achievable_flops / 1e12:g} of {peak / 1e12:g} TFLOP/s = "
            f"{gpu.achievable_flops / peak:.0%} (MAMF)"
        )
    if gpu.peak.disputed:
        yield f"the peak is disputed: {gpu.peak.disputed}"
    if config.train.compile:
        yield "train.compile: memory is that of a model that is not compiled"
    native = config.comm.exchange == "native" or (
        config.comm.exchange == "auto" and config.comm.backend == "ddp" and not job.sharded
    )
    if native and estimate.cluster.gpus > 1:
        yield "comm.exchange: memory is that of our own buckets; native exchanges have buffers more"
    if estimate.cluster.nodes > 1 and estimate.cluster.inter.latency_s >= WIDE_AREA_LATENCY_S:
        yield (
            f"warning: at {estimate.cluster.inter.latency_s * 1e3:g} ms this is a wide-area link: "
            "TCP's windows, lost packets and other traffic on it are not modelled, and each of "
            "them makes the exchange longer; measure one all-reduce there (hpctrain bench "
            "allreduce)"
        )
    if goals.efficiency is None and estimate.speed.efficiency < GOOD_EFFICIENCY:
        yield f"for less waiting {hint_accumulation(estimate, GOOD_EFFICIENCY)}"
