"""What part of its peak will a GPU compute? Measured, else published, never wished for."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hpctrain.bench.samples import Sample, read_sample, sample_from_json
from hpctrain.errors import BenchError, ConfigError, HpctrainError
from hpctrain.estimate.gpus import Gpu, read_gpus
from hpctrain.estimate.load import SIXTEEN_BIT
from hpctrain.estimate.quantities import render_count
from hpctrain.gpu_peaks import find_peak

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

TABLE = Path(__file__).with_name("published.toml")
WARMUP_STEPS = 10
NEWEST_RUNS = 200  # directories that are looked at
SAME_SIZE = 0.05  # parameters may differ by this part
REACH = 2.0  # a published figure speaks for models up to so many times larger or smaller


@dataclass(frozen=True, kw_only=True, slots=True)
class MfuFigure:
    """A model FLOPs utilization and where it comes from.

    Args:
        kind: ``given``, ``measured`` or ``published``.
        recomputed: whether work that activation checkpointing does again is in it already.
    """

    value: float
    kind: str
    source: str
    recomputed: bool = False


def choose_mfu(
    gpu: Gpu, params: int, precision: str, runs_dir: Path | None = None
) -> MfuFigure | None:
    """Return the figure of the newest measured run that fits, else the published one; else None.

    Raises:
        BenchError: a measured run claims over 100 %.
    """
    measured = None if runs_dir is None else _find_measured(gpu, params, precision, runs_dir)
    return measured or find_published(gpu, params, precision)


def require_mfu(gpu: Gpu, params: int, precision: str, figure: MfuFigure | None) -> MfuFigure:
    """Return the figure.

    Raises:
        ConfigError: there is none: it must be given or measured.
    """
    if figure is not None:
        return figure
    raise ConfigError(
        f"--mfu: nothing is measured or published for {render_count(params)} parameters in "
        f"{precision} on {gpu.name}, got none; expected a share such as 0.4. Measure a short run "
        "there (hpctrain run, then --runs-dir), or give --mfu by your own experience. Published "
        f"are: {_published_words()}."
    )


def find_published(gpu: Gpu, params: int, precision: str) -> MfuFigure | None:
    """Return what was published for the GPU, between sizes by the logarithm of the parameters.

    >>> from hpctrain.estimate.gpus import find_gpu
    >>> round(find_published(find_gpu("a100-80gb"), 1_315_178_496, "bf16").value, 3)
    0.599
    >>> find_published(find_gpu("a100-80gb"), 800_000, "bf16") is None  # far smaller than any
    True
    """
    if precision not in SIXTEEN_BIT:
        return None
    for name in (gpu.name, gpu.like):
        for source, rows in _figures(name):
            smallest, largest = rows[0][0], rows[-1][0]
            if not smallest / REACH <= params <= largest * REACH:
                continue
            value, near = _interpolate(rows, params)
            of_other = "" if name == gpu.name else f", for the {name}: a lower bound"
            return MfuFigure(
                value=value, kind="published",
                source=f"{source['text']}: {near}{of_other} (looked at {source['looked_at']})",
            )  # fmt: skip
    return None


def mfu_of(sample: Sample, name: str = "run") -> float | None:
    """Return a measured run's utilization without the waiting for exchanges; None where unknown.

    The exchange is left out because the scaling model adds it, for the topology that is asked.

    Raises:
        BenchError: it is over 100 %, so the measurement is wrong.
    """
    if not (sample.flops_per_token and sample.peak_flops and sample.tokens_per_step):
        return None
    step_s = median(sample.step_time_s)
    exposed_s = min((median(rank.exposed_comm_s) for rank in sample.ranks), default=0.0)
    flops = sample.tokens_per_step * sample.flops_per_token / sample.np
    value = flops / (sample.peak_flops * max(step_s - exposed_s, 1e-12))
    if value > 1:
        raise BenchError(
            f"{name}: it cannot have computed so much, got an MFU of {value:.0%}; expected at most "
            "100 %. Its times or its peak are wrong: measure again."
        )
    return value


def _find_measured(gpu: Gpu, params: int, precision: str, folder: Path) -> MfuFigure | None:
    def fits(device_name: str | None, its_precision: str | None, its_params: int | None) -> bool:
        peak = find_peak(device_name or "")
        return (
            peak is not None
            and peak.name == gpu.peak.name
            and _same_format(its_precision, precision)
            and its_params is not None
            and abs(its_params / params - 1) <= SAME_SIZE
        )

    for name, sample, recomputed in _samples(folder, fits):
        if not fits(sample.device_name, sample.precision, sample.params):
            continue
        if (value := mfu_of(sample, name)) is not None:
            return MfuFigure(
                value=value, kind="measured", recomputed=recomputed,
                source=f"run {name}, {sample.np} rank(s), {sample.device_name}, "
                f"{sample.precision}, without its exposed exchange",
            )  # fmt: skip
    return None


def _samples(folder: Path, fits: Callable[..., bool]) -> Iterator[tuple[str, Sample, bool]]:
    """Yield what was measured, the newest first: run directories and benches.

    With each its name, and whether it ran with activation checkpointing. Runs that do not fit by
    what they say at their start are not read to their end.
    """
    found = [*folder.glob("events.jsonl"), *folder.glob("*/events.jsonl")]
    found += [*folder.glob("samples.jsonl"), *folder.glob("*/samples.jsonl")]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[:NEWEST_RUNS]:
        try:
            if path.name == "events.jsonl":
                if fits(*_started(path)):
                    sample = read_sample(path.parent, WARMUP_STEPS)
                    yield str(path.parent), sample, _recomputed(path.parent)
                continue
            # Its last line may be half one, from a bench that was killed.
            lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
            for line in reversed(lines):
                record = json.loads(line)
                run = path.parent / record["run"]
                yield str(run), sample_from_json(record["sample"]), _recomputed(run)
        except (HpctrainError, OSError, ValueError, KeyError, TypeError):
            continue  # unfinished, or of another program


def _started(path: Path) -> tuple[Any, Any, Any]:
    """Return device, precision and parameters as the trainer told them when it began."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if '"train_started"' in line:
                event = json.loads(line)
                return event.get("device_name"), event.get("precision"), event.get("params")
    return None, None, None


def _recomputed(run_path: Path) -> bool:
    try:
        text = (run_path / "run.toml").read_text(encoding="utf-8")
        return bool(tomllib.loads(text)["train"]["activation_checkpointing"])
    except (OSError, ValueError, KeyError):
        return False


def _same_format(measured: str | None, asked: str) -> bool:
    return measured == asked or (measured in SIXTEEN_BIT and asked in SIXTEEN_BIT)


def _interpolate(rows: list[list[float]], params: int) -> tuple[float, str]:
    """Return the figure at `params`, and between which published ones it lies."""
    below = max((row for row in rows if row[0] <= params), default=rows[0])
    above = min((row for row in rows if row[0] >= params), default=rows[-1])
    words = " and ".join(
        f"{render_count(row[0])} on {row[2]:.0f} GPU(s) {row[1]:.1%}"
        for row in sorted({tuple(below), tuple(above)})
    )
    if above[0] == below[0]:
        return below[1], words
    part = math.log(params / below[0]) / math.log(above[0] / below[0])
    return below[1] + part * (above[1] - below[1]), f"between {words}"


def _figures(gpu_name: str | None) -> Iterator[tuple[Mapping[str, Any], list[list[float]]]]:
    for source in _table():
        for figure in source["figure"]:
            if figure["gpu"] == gpu_name:
                yield source, figure["rows"]


def _published_words() -> str:
    words = []
    for name in read_gpus():
        sizes = [row[0] for _, rows in _figures(name) for row in rows]
        if sizes:
            words.append(f"{name} {render_count(min(sizes))} to {render_count(max(sizes))}")
    return ", ".join(words)


@functools.cache
def _table() -> list[dict[str, Any]]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))["source"]
