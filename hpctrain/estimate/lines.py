"""An estimate as lines: what, how much, and where each figure comes from."""

from __future__ import annotations

from collections.abc import Iterator

from hpctrain.estimate.band import Band, find_band
from hpctrain.estimate.line import Line
from hpctrain.estimate.lines_of_plan import describe_checkpoints, describe_money
from hpctrain.estimate.load import SIXTEEN_BIT
from hpctrain.estimate.memory import MEMORY_ERROR, RESERVE_BYTES
from hpctrain.estimate.plan import Estimate
from hpctrain.estimate.quantities import (
    render_bytes,
    render_count,
    render_duration,
)


def describe(estimate: Estimate) -> tuple[Line, ...]:
    """Return every line of an estimate."""
    band = find_band(estimate)
    return (
        *_model(estimate), *_cluster(estimate), *_memory(estimate), *_speed(estimate, band),
        *_time(estimate, band), *describe_checkpoints(estimate), *describe_money(estimate, band),
    )  # fmt: skip


def _model(estimate: Estimate) -> Iterator[Line]:
    size, cost, tokens = estimate.job.size, estimate.cost, estimate.job.tokens
    positions = "s·d + " if size.position == "learned" else ""
    shape = f"{size.num_layers} layers, d {size.d_model}, vocabulary {size.vocab_size:,}"
    yield Line(
        group="model",
        key="params",
        name="parameters",
        value=cost.params,
        text=render_count(cost.params),
        source=f"V·d + {positions}L·(12·d² + 2·d) + d, {shape}",
    )
    yield Line(
        group="model",
        key="flops_per_token",
        name="FLOPs a token",
        value=cost.flops_per_token,
        text=f"{cost.flops_per_token:.4g}",
        source=f"6·N + 12·L·d·s (Chowdhery et al. 2022, appendix B), s = {size.seq_len}",
    )
    yield Line(
        group="model", key="tokens", name="tokens", value=tokens, text=render_count(tokens),
        source=f"as asked; {tokens * cost.flops_per_token:.3g} FLOP in all",
    )  # fmt: skip


def _cluster(estimate: Estimate) -> Iterator[Line]:
    cluster, job, speed = estimate.cluster, estimate.job, estimate.speed
    gpu, load = cluster.gpu, job.load(cluster.gpus)
    peak = gpu.peak_flops(job.precision) or 0.0
    yield Line(
        group="cluster",
        key="gpus",
        name="GPUs",
        value=cluster.gpus,
        text=f"{cluster.nodes} x {cluster.gpus_per_node} {gpu.name}",
        source=f"nodes x GPUs; {cluster.instance or 'as asked'}",
    )
    yield Line(
        group="cluster",
        key="peak_flops",
        name=f"peak, {job.precision}",
        value=peak,
        text=f"{peak / 1e12:g} TFLOP/s",
        source=f"{gpu.peak.source}, as of {gpu.peak.as_of}",
    )
    if cluster.nodes > 1:
        link = cluster.inter
        yield Line(
            group="cluster",
            key="link_bytes_per_s",
            name="link of a node",
            value=link.bandwidth_bytes_per_s,
            text=f"{link.bandwidth_bytes_per_s / 1e9:.3g} GB/s, {link.latency_s * 1e3:g} ms",
            source=link.source,
        )
    chosen = " (accumulation: the least that fits)" if estimate.assumptions.chooses_accum else ""
    yield Line(
        group="cluster", key="tokens_per_step", name="global batch", value=speed.tokens_per_step,
        text=f"{render_count(speed.tokens_per_step)} tokens",
        source=f"a GPU: {load.sequences} sequences in {job.accum} micro-batch(es) of "
        f"{load.micro_batch}{chosen}",
    )  # fmt: skip


def _memory(estimate: Estimate) -> Iterator[Line]:
    memory, gpu = estimate.memory, estimate.cluster.gpu
    for part in memory.parts:
        yield Line(
            group="memory", key=f"{part.name.replace(' ', '_').replace('-', '_')}_bytes",
            name=part.name, value=part.size_bytes, text=render_bytes(part.size_bytes),
            source=part.formula,
        )  # fmt: skip
    yield Line(
        group="memory",
        key="peak_bytes",
        name="peak of tensors",
        value=memory.peak_bytes,
        text=render_bytes(memory.peak_bytes),
        source=f"the sum, at the fullest moment: {memory.moment}; fused attention assumed",
    )
    yield Line(
        group="memory", key="needed_bytes", name="needed", value=memory.needed_bytes,
        text=f"{render_bytes(memory.needed_bytes)} of {render_bytes(gpu.memory_bytes)}",
        source=f"with {render_bytes(RESERVE_BYTES)} for CUDA, NCCL and gaps (assumption); at most "
        f"{render_bytes(memory.at_most_bytes)}, {MEMORY_ERROR:.0%} more tensors",
    )  # fmt: skip


def _speed(estimate: Estimate, band: Band) -> Iterator[Line]:
    speed, mfu, gpu = estimate.speed, estimate.assumptions.mfu, estimate.cluster.gpu
    peak = gpu.peak_flops(estimate.job.precision) or 1.0
    over = ""
    if gpu.achievable_flops and estimate.job.precision in SIXTEEN_BIT:
        over = f"; matrix products reach {gpu.achievable_flops / peak:.0%}"
    again = "; a third more for activation checkpointing" if (
        estimate.job.recomputes and not mfu.recomputed
    ) else ""  # fmt: skip
    gathering = (
        f", {render_duration(speed.gather_s)} for the sharded weights (fp32, not hidden)"
        if speed.gather_s else ""
    )  # fmt: skip
    yield Line(
        group="speed", key="mfu", name="MFU of a GPU", value=mfu.value, text=f"{mfu.value:.1%}",
        source=f"{mfu.kind}, ±{mfu.error:.0%}: {mfu.source}{over}{again}",
    )  # fmt: skip
    yield Line(
        group="speed",
        key="efficiency",
        name="scaling efficiency",
        value=speed.efficiency,
        text=f"{speed.efficiency:.1%}",
        source=f"scaling model, {band.efficiency.low:.0%} to {band.efficiency.high:.0%}: of a step "
        f"of {render_duration(speed.step_s)}, {render_duration(speed.exposed_s)} wait for the "
        f"exchange{gathering} and {render_duration(speed.waiting_s)} for the slowest rank",
    )
    yield Line(
        group="speed",
        key="tokens_per_s",
        name="tokens/s",
        value=speed.tokens_per_s,
        text=render_count(speed.tokens_per_s),
        source=f"{render_count(band.tokens_per_s.low)} to {render_count(band.tokens_per_s.high)}; "
        f"{render_count(speed.tokens_per_s / estimate.cluster.gpus)} a GPU; the ceiling at "
        f"100 % MFU is {render_count(speed.ceiling_tokens_per_s)}",
    )


def _time(estimate: Estimate, band: Band) -> Iterator[Line]:
    yield Line(
        group="time",
        key="training_s",
        name="training",
        value=estimate.training_s,
        text=render_duration(estimate.training_s),
        source=f"{estimate.steps:,} steps; at 100 % MFU {render_duration(estimate.ceiling_s)}",
    )
    yield Line(
        group="time",
        key="expected_s",
        name="with failures",
        value=estimate.expected_s,
        text=render_duration(estimate.expected_s),
        source=f"training / goodput; {render_duration(band.expected_s.low)} to "
        f"{render_duration(band.expected_s.high)} by the band of MFU and link",
    )
    yield Line(
        group="time", key="gpu_hours", name="GPU-hours", value=estimate.gpu_hours,
        text=f"{estimate.gpu_hours:,.0f}", source=f"GPUs, with failures; "
        f"{band.gpu_hours.low:,.0f} to {band.gpu_hours.high:,.0f}",
    )  # fmt: skip
