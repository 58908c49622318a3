"""What MFU did a run of one's own have, and which run fits what is asked?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hpctrain.bench.samples import Sample, read_sample, sample_from_json
from hpctrain.errors import BenchError, HpctrainError
from hpctrain.estimate.gpus import Gpu
from hpctrain.estimate.load import SIXTEEN_BIT
from hpctrain.estimate.mfu import MfuFigure, find_published
from hpctrain.gpu_peaks import find_peak
from hpctrain.train.presets import PRESETS

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

WARMUP_STEPS = 10
ENOUGH_STEPS = 10  # timed ones: of fewer the median says little
NEWEST_RUNS = 200  # directories that are looked at
SAME_SIZE = 0.05  # parameters may differ by this part


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a measured run must have been."""

    gpu: Gpu
    params: int
    precision: str
    seq_len: int
    compiled: bool

    def fits(self, device_name: Any, precision: Any, params: Any) -> bool:
        """Return whether GPU, number format and size are the same, by what a run says of itself."""
        peak = find_peak(device_name or "")
        same_format = precision == self.precision or (
            precision in SIXTEEN_BIT and self.precision in SIXTEEN_BIT
        )
        return (
            peak is not None and peak.name == self.gpu.peak.name and same_format
            and params is not None and abs(params / self.params - 1) <= SAME_SIZE
        )  # fmt: skip

    def fits_settings(self, settings: Settings) -> bool:
        """Return whether length and compiling are the same, or not known."""
        return (
            settings.seq_len in (None, self.seq_len)
            and settings.compiled in (None, self.compiled)
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """A run's own, by its run.toml; None where that does not say."""

    seq_len: int | None = None
    compiled: bool | None = None
    recomputes: bool = False

    @property
    def words(self) -> str:
        """For people."""
        length = "unknown" if self.seq_len is None else str(self.seq_len)
        compiled = {None: "not known", True: "yes", False: "no"}[self.compiled]
        again = ", activation checkpointing" if self.recomputes else ""
        return f"{length} tokens a sequence, compiled: {compiled}{again}"


def choose_mfu(wanted: Wanted, runs_dir: Path | None = None) -> MfuFigure | None:
    """Return the figure of a measured run that fits, else the published one; else None.

    Raises:
        BenchError: a measured run claims over 100 %.
    """
    measured = None if runs_dir is None else _find_measured(wanted, runs_dir)
    return measured or find_published(wanted.gpu, wanted.params, wanted.precision, wanted.seq_len)


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


def _find_measured(wanted: Wanted, folder: Path) -> MfuFigure | None:
    """Return the newest run that fits, rather one with enough timed steps and known settings."""
    best: tuple[tuple[bool, bool], MfuFigure] | None = None
    for name, sample, settings in _samples(folder, wanted):
        if not wanted.fits(sample.device_name, sample.precision, sample.params):
            continue
        if not wanted.fits_settings(settings) or (value := mfu_of(sample, name)) is None:
            continue
        steps = len(sample.step_time_s)
        rank = steps >= ENOUGH_STEPS, settings.seq_len is not None
        figure = MfuFigure(
            value=value, kind="measured", recomputed=settings.recomputes,
            source=f"run {name}, {sample.np} rank(s), {sample.device_name}, {sample.precision}, "
            f"{settings.words}, {steps} timed steps, without its exposed exchange",
        )  # fmt: skip
        if best is None or rank > best[0]:
            best = rank, figure
        if all(rank):
            break
    return best[1] if best else None


def _samples(folder: Path, wanted: Wanted) -> Iterator[tuple[str, Sample, Settings]]:
    """Yield what was measured, the newest first: run directories and benches.

    With each its name and settings. Runs that do not fit by what they say at their start are not
    read to their end.
    """
    found = [*folder.glob("events.jsonl"), *folder.glob("*/events.jsonl")]
    found += [*folder.glob("samples.jsonl"), *folder.glob("*/samples.jsonl")]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[:NEWEST_RUNS]:
        try:
            if path.name == "events.jsonl":
                if wanted.fits(*_started(path)):
                    sample = read_sample(path.parent, WARMUP_STEPS)
                    yield str(path.parent), sample, _settings(path.parent)
                continue
            # Its last line may be half one, from a bench that was killed.
            lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
            for line in reversed(lines):
                record = json.loads(line)
                run = path.parent / record["run"]
                yield str(run), sample_from_json(record["sample"]), _settings(run)
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


def _settings(run_path: Path) -> Settings:
    try:
        table = tomllib.loads((run_path / "run.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Settings()
    model, train = table.get("model", {}), table.get("train", {})
    preset = PRESETS.get(model.get("preset", ""), {})
    return Settings(
        seq_len=model.get("seq_len") or preset.get("seq_len"),
        compiled=train.get("compile"),
        recomputes=bool(train.get("activation_checkpointing")),
    )
