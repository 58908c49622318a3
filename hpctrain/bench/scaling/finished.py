"""What a finished trial of a scaling measurement gave: read, and in a few words."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from hpctrain.bench.samples import read_sample
from hpctrain.bench.scaling.cases import Case, StoredSample
from hpctrain.bench.scaling.metric import read_metric, read_sample_with_metric
from hpctrain.bench.scaling.request import Bench


def read_trial(
    bench: Bench, case: Case, repeat: int, run_path: Path, load_before: float, wall_s: float
) -> StoredSample:
    """Return what a finished trial measured.

    Raises:
        BenchError: it reported no step, or no rate where one was to be read.
    """
    warmup, metric = bench.plan.warmup_steps, None
    if bench.metric is not None:
        metric = read_metric(run_path, bench.metric, warmup)
        sample = read_sample_with_metric(run_path, warmup)
    else:
        sample = read_sample(run_path, warmup)
    return StoredSample(
        case=case.key, repeat=repeat, load_before=load_before, sample=sample, metric=metric,
        time_s=time.time(), run=str(run_path.relative_to(bench.folder)), wall_s=wall_s,
    )  # fmt: skip


def render_rate(stored: StoredSample) -> str:
    """Return a trial's rate for a person: a median."""
    if stored.metric is not None:
        return f"{statistics.median(stored.metric):.6g} by --metric"
    step_s = statistics.median(stored.sample.step_time_s)
    tokens = stored.sample.tokens_per_step
    rate = f", {tokens / step_s:,.0f} tokens/s" if tokens else ""
    return f"{step_s:.4g} s a step{rate}"
