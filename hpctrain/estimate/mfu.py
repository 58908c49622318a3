"""What part of its peak will a GPU compute? Measured, else published, never wished for."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpctrain.errors import ConfigError
from hpctrain.estimate.gpus import Gpu, read_gpus
from hpctrain.estimate.load import SIXTEEN_BIT
from hpctrain.estimate.quantities import render_count

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

TABLE = Path(__file__).with_name("published.toml")
REACH = 2.0  # a published figure speaks for models up to so many times larger or smaller
USUAL_SEQ_LEN = 2048
# Relative uncertainty of a GPU's rate, by where its MFU comes from. Published: runs of one model
# differ by 8 % there (760M on H100: 34.9 % on 8 GPUs, 37.9 % on 16), and our trainer is another.
ERRORS = {"given": 0.05, "measured": 0.05, "published": 0.10}
FAR_ERROR = 0.20  # published for another length, another GPU, or no model so large or so small


@dataclass(frozen=True, kw_only=True, slots=True)
class MfuFigure:
    """A model FLOPs utilization and where it comes from.

    Args:
        kind: ``given``, ``measured`` or ``published``.
        recomputed: whether work that activation checkpointing does again is in it already.
        far: published for something else than what is asked; `source` says what.
    """

    value: float
    kind: str
    source: str
    recomputed: bool = False
    far: bool = False

    @property
    def error(self) -> float:
        """Relative uncertainty: the truth is thought to be within so much of the value."""
        return FAR_ERROR if self.far else ERRORS[self.kind]


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


def find_published(
    gpu: Gpu, params: int, precision: str, seq_len: int = USUAL_SEQ_LEN
) -> MfuFigure | None:
    """Return what was published for the GPU, between sizes by the logarithm of the parameters.

    Of several lengths of a sequence the nearest to the one that is asked for.

    >>> from hpctrain.estimate.gpus import find_gpu
    >>> round(find_published(find_gpu("a100-80gb"), 1_315_178_496, "bf16").value, 3)
    0.599
    >>> find_published(find_gpu("a100-80gb"), 800_000, "bf16") is None  # far smaller than any
    True
    """
    if precision not in SIXTEEN_BIT:
        return None
    for name in (gpu.name, gpu.like):
        figures = [
            (source, figure) for source, figure in _figures(name)
            if figure["rows"][0][0] / REACH <= params <= figure["rows"][-1][0] * REACH
        ]  # fmt: skip
        if figures:
            source, figure = min(figures, key=lambda each: _distance(each[1], params, seq_len))
            return _published_figure(gpu, source, figure, params, seq_len)
    return None


def _distance(figure: Mapping[str, Any], params: int, seq_len: int) -> tuple[bool, float]:
    """Return how far a table is from what is asked: its sizes first, then its length."""
    return not _within(figure["rows"], params), abs(math.log(figure["seq_len"] / seq_len))


def _published_figure(
    gpu: Gpu, source: Mapping[str, Any], figure: Mapping[str, Any], params: int, seq_len: int
) -> MfuFigure:
    value, near = _interpolate(figure["rows"], params)
    of_other = "" if figure["gpu"] == gpu.name else f", for the {figure['gpu']}: a lower bound"
    length = f"{figure['seq_len']} tokens a sequence"
    if other_length := figure["seq_len"] != seq_len:
        length += f", not {seq_len} as here"
    exchange = "" if figure["rows"][0][2] == 1 else ", their exchange included"
    return MfuFigure(
        value=value, kind="published",
        far=other_length or bool(of_other) or not _within(figure["rows"], params),
        source=f"{source['text']}: {near}{exchange}, {length}, {figure['numbers']}{of_other} "
        f"(looked at {source['looked_at']})",
    )  # fmt: skip


def _within(rows: list[list[float]], params: int) -> bool:
    """Return whether the sizes that were published reach around this one, by 5 %."""
    return rows[0][0] / 1.05 <= params <= rows[-1][0] * 1.05


def _interpolate(rows: list[list[float]], params: int) -> tuple[float, str]:
    """Return the figure at `params`, and between which published ones it lies.

    Beyond the largest, the lower one of the last two. Below the smallest, as it falls from the
    second to the smallest, never more than that: small models are less efficient.
    """
    if not _within(rows, params):
        return _beyond(rows, params)
    below = max((row for row in rows if row[0] <= params), default=rows[0])
    above = min((row for row in rows if row[0] >= params), default=rows[-1])
    words = " and ".join(_row_words(row) for row in sorted({tuple(below), tuple(above)}))
    if above[0] == below[0]:
        return below[1], words
    part = math.log(params / below[0]) / math.log(above[0] / below[0])
    return below[1] + part * (above[1] - below[1]), f"between {words}"


def _beyond(rows: list[list[float]], params: int) -> tuple[float, str]:
    if params > rows[-1][0]:
        lowest = min(rows[-2:], key=lambda row: row[1])
        which = "the only one" if len(rows) == 1 else "the lower of the two largest"
        return lowest[1], f"none so large, {which}: {_row_words(lowest)}"
    if len(rows) == 1:
        return rows[0][1], f"none so small, the only one is {_row_words(rows[0])}"
    (size, mfu, _), (next_size, next_mfu, _) = rows[:2]
    slope = max(0.0, next_mfu - mfu) / math.log(next_size / size)
    value = max(mfu / 2, mfu - slope * math.log(size / params))
    return value, f"none so small, falling on from {_row_words(rows[1])} and {_row_words(rows[0])}"


def _row_words(row: tuple[float, ...] | list[float]) -> str:
    return f"{render_count(row[0])} on {row[2]:.0f} GPU(s) {row[1]:.1%}"


def _figures(gpu_name: str | None) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for source in _table():
        for figure in source["figure"]:
            if figure["gpu"] == gpu_name:
                yield source, figure


def _published_words() -> str:
    words = []
    for name in read_gpus():
        sizes = [row[0] for _, figure in _figures(name) for row in figure["rows"]]
        if sizes:
            words.append(f"{name} {render_count(min(sizes))} to {render_count(max(sizes))}")
    return ", ".join(words)


@functools.cache
def _table() -> list[dict[str, Any]]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))["source"]
