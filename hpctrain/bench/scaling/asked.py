"""What a person typed for a measurement, as a value; what is wrong with it; pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hpctrain.bench.scaling.cases import Case, Mode
from hpctrain.bench.scaling.placements import Room
from hpctrain.bench.scaling.plan import WARMUP_STEPS, Wanted
from hpctrain.config import Config, as_tables
from hpctrain.config.load import choices_of
from hpctrain.errors import ConfigError
from hpctrain.launch.prepare import Asked

FOLDER = Path("benches")


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchAsked:
    """The command line of ``hpctrain bench scaling``.

    Args:
        run: what it has in common with ``hpctrain run``.
        mode: weak where nobody says.
        precisions: the configuration's where none is given.
        warmup_steps: None for the default: WARMUP_STEPS, or 0 with `metric`.
        timed_steps: None for TIMED_STEPS.
        out: the folder; None for one of `name` in FOLDER.
        timeout_s: a trial that takes longer is an error.
        remeasure: names of trials, or cases, that are measured again.
    """

    run: Asked
    sizes: tuple[int, ...] | None = None
    mode: Literal["weak", "strong", "both"] | None = None
    precisions: tuple[str, ...] = ()
    repeats: int = 5
    warmup_steps: int | None = None
    timed_steps: int | None = None
    metric: str | None = None
    usd_per_hour: float | None = None
    allreduce: bool = True
    probe: bool = False
    out: Path | None = None
    name: str | None = None
    timeout_s: float = 1800.0
    remeasure: tuple[str, ...] = ()


def parse_sizes(text: str) -> tuple[int, ...]:
    """Return the sizes of ``--np``, each once, the smallest first.

    >>> parse_sizes("4,1,2,2")
    (1, 2, 4)

    Raises:
        ConfigError: one of them is no count.
    """
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not (word.isascii() and word.isdigit() and int(word))]
    if wrong:
        raise ConfigError(
            f"--np: no numbers of ranks, got '{text}'; expected whole numbers like 1,2,4."
        )
    return tuple(sorted({int(word) for word in words}))


def option_problems(asked: BenchAsked) -> Iterator[str]:
    """Return what is wrong with the options, each by itself or with two of them together."""
    known = choices_of("train.precision")
    for precision in asked.precisions:
        if precision not in known:
            yield (
                f"--precision: unknown value, got '{precision}'; expected some of "
                f"{', '.join(known)}."
            )
    if asked.out is not None and asked.name is not None:
        yield f"--out and --name are both given; expected one: --name NAME is --out {FOLDER}/NAME."
    if not asked.run.program:
        if asked.metric is not None:
            yield "--metric: is read from a COMMAND's output, got none; expected -- COMMAND."
        return
    own = {
        "--precision": bool(asked.precisions),
        "--steps": asked.timed_steps is not None,
        "--mode both": asked.mode == "both",
    }
    for option, given in own.items():
        if given:
            yield (
                f"{option}: is for hpctrain's trainer, got it with a COMMAND; expected that "
                "COMMAND decides it. Measure it twice, each with its own --out."
            )


def warmup_steps_of(asked: BenchAsked) -> int:
    """Return how many first steps, or rates, of a trial do not count."""
    if asked.warmup_steps is not None:
        return asked.warmup_steps
    return WARMUP_STEPS if asked.metric is None else 0


def describe_asked(
    asked: BenchAsked, wanted: Wanted, cases: tuple[Case, ...], rooms: tuple[Room, ...],
    config: Config, warmup: int, timed: int | None,
) -> dict[str, Any]:  # fmt: skip
    """Return what a later call must ask for as well, to go on with this measurement."""
    modes: tuple[Mode, ...] = wanted.modes
    options = {
        "--np": sorted({case.np for case in cases}),
        "--hosts": [[room.name, room.slots] for room in rooms],
        "--mode": "both" if len(modes) == 2 else modes[0],
        "--precision": sorted({case.precision for case in cases if case.precision}),
        "--repeats": asked.repeats,
        "--warmup-steps": warmup,
        "--steps": timed,
        "--metric": asked.metric,
        "--usd-per-hour": asked.usd_per_hour,
        "--oversubscribe": asked.run.oversubscribe,
        "--allreduce": asked.allreduce,
        "COMMAND": shlex.join(asked.run.program),
        "cases": [asdict(case) for case in cases],
    }
    ready: dict[str, Any] = json.loads(
        json.dumps({"options": options, "config": as_tables(config)})
    )
    return ready  # as it is read back: lists, no tuples
