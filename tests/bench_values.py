"""Measurements made up by hand, whose report can be worked out by hand too."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpctrain.bench.allreduce.results import AllreducePoint, AllreduceResult
from hpctrain.bench.samples import RankSteps, Sample
from hpctrain.bench.scaling.cases import BenchPlan, Case, StoredSample, name_placement

PARTS = {"data": 0.01, "forward": 0.1, "backward": 0.2, "exposed_comm": 0.0, "optimizer": 0.04}
ENVIRONMENT = {"date": "2026-01-02", "cpu": "A CPU <x>", "cores": "8", "commit": "abc",
               "hosts": [{"name": "localhost", "slots": 8, "cores": 8, "gpus": None}]}  # fmt: skip
STEPS = 8


def make_case(np: int, mode="weak", nodes=1, precision: str | None = "fp32") -> Case:
    words = [mode, precision, name_placement(np, nodes)]
    share = np // nodes
    return Case(
        key="-".join(word for word in words if word), mode=mode, np=np, nodes=nodes,
        precision=precision, overrides=(),
        hosts=None if nodes == 1 else tuple((f"n{node}", share) for node in range(nodes)),
    )  # fmt: skip


def make_sample(
    case: Case, parts: Mapping[str, float] | Sequence[Mapping[str, float]] = PARTS, *,
    other=0.0, tokens=None, steps=STEPS, losses=(5.0, 4.0), seed=None, noise=0.0, **more,
) -> Sample:  # fmt: skip
    """Return a sample whose ranks spend `parts` (s) in each step, all alike or one each.

    `noise` is the relative standard deviation of every part, from `seed`.
    """
    each = [parts] * case.np if isinstance(parts, Mapping) else list(parts)
    chance = random.Random(seed)

    def noisy(value):
        return max(1e-6, value * chance.gauss(1, noise)) if noise else value

    ranks = tuple(
        RankSteps(
            rank=rank, host=_host(case, rank), device="cpu",
            **{f"{name}_s": tuple(noisy(v) for _ in range(steps)) for name, v in own.items()},
        )
        for rank, own in enumerate(each)
    )  # fmt: skip
    total = [
        sum(getattr(ranks[0], f"{name}_s")[step] for name in PARTS) + other for step in range(steps)
    ]
    known = {
        "precision": case.precision, "params": 1_000_000, "flops_per_token": 6e6,
        "peak_flops": None, "device_name": None,
    }  # fmt: skip
    return Sample(
        np=case.np, step_time_s=tuple(total), losses=tuple(losses), ranks=ranks,
        tokens_per_step=tokens or (1000 * case.np if case.mode == "weak" else 1000),
        **(known | more),
    )  # fmt: skip


def _host(case: Case, rank: int) -> str:
    return "localhost" if case.hosts is None else f"n{rank * case.nodes // case.np}"


def store(case: Case, sample: Sample, repeat=0, metric=None) -> StoredSample:
    return StoredSample(
        case=case.key, repeat=repeat, load_before=0.1, sample=sample, metric=metric,
        run=f"runs/{case.key}-{repeat + 1}",
    )  # fmt: skip


def foreign_sample(np: int) -> Sample:
    """Return what a COMMAND leaves that only prints a metric."""
    return Sample(
        np=np, step_time_s=(), losses=(), tokens_per_step=None, precision=None, params=None,
        flops_per_token=None, peak_flops=None, device_name=None, ranks=(),
    )  # fmt: skip


def make_plan(cases: Sequence[Case], repeats=3, **more) -> BenchPlan:
    given = {"asked": {"options": {}, "config": {}}, "environment": ENVIRONMENT} | more
    return BenchPlan(
        cases=tuple(cases), repeats=repeats, warmup_steps=2, timed_steps=STEPS, **given
    )


def make_allreduce(np: int, nodes=1, latency_s=1e-4, bandwidth=1e9) -> AllreduceResult:
    """Return an all-reduce that follows the ring's formula to the letter."""
    points = tuple(
        AllreducePoint(
            backend="horovod", bytes_=bytes_, wrong=0, n=np,
            repeats_s=(2 * (np - 1) * latency_s + 2 * (np - 1) / np * bytes_ / bandwidth,) * 3,
        )
        for bytes_ in (4096, 65536, 1 << 20, 16 << 20)
    )  # fmt: skip
    return AllreduceResult(n=np, nodes=nodes, placement="all", points=points)


def write_bench(
    folder: Path, plan: BenchPlan, samples: Sequence[StoredSample],
    allreduces: Mapping[str, AllreduceResult] | None = None,
) -> Path:  # fmt: skip
    """Write a measurement's folder as `hpctrain bench` does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(plan.as_json()))
    lines = [json.dumps(sample.as_json()) + "\n" for sample in samples]
    (folder / "samples.jsonl").write_text("".join(lines))
    if allreduces:
        placements = {name: result.as_json() for name, result in allreduces.items()}
        record = {"schema": 1, "placements": placements}
        (folder / "allreduce.json").write_text(json.dumps(record))
    return folder
