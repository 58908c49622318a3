"""Does tuning find the fastest settings? Against every combination of the same values.

    python benchmarks/tune.py --dir /tmp/tune-bench --out benchmarks/results/tune.json

First `hpctrain tune`'s search on 2 ranks, with at most 60 steps a candidate. Then the exhaustive
grid of the same values, each combination --grid-rounds times, in turn, and the best five of it
twice more. At last the tuned settings, the best two of the grid and the defaults in turn, seven
times. The goal: the tuned settings reach 95 % of the speed of the grid's best. A 3.2M-parameter
transformer (d 256, 4 layers, 256 tokens), 4 sequences of 128 a rank, fp32. About 12 minutes on a
quiet machine; --minutes 5 stops after that time, and the same command goes on.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from measuring import environment, quartiles, row, warn_if_busy, write_result

from hpctrain.tune.arms import DEFAULT, Arm, arm_name
from hpctrain.tune.asked import TuneAsked
from hpctrain.tune.measure import measure_arm, run_search, write_tuning
from hpctrain.tune.request import Tuning, prepare_tuning
from hpctrain.tune.search import STEPS, Ask, Measured, Search
from hpctrain.tune.store import TuneStore, read_trials
from hpctrain.tune.verdict import Verdict, judge

ONLY = ("comm.bucket_mb", "mpi_yield_when_idle", "HOROVOD_CYCLE_TIME")
MOST_VALUES = 2  # of each, besides what a run has now: 3 x 2 x 3 combinations
GRID_ROUNDS, BEST_ROUNDS, COMPARE_ROUNDS = 3, 2, 7
BEST, COMPARED = 5, 2
GOAL = 0.95
TIMEOUT_S = 120.0
SETTINGS = {
    "model.d_model": 256, "model.num_layers": 4, "model.num_heads": 4, "model.vocab_size": 256,
    "model.seq_len": 128, "train.batch_size_per_rank": 4, "train.device": "cpu",
}  # fmt: skip


class Watch:
    """Says what happens, and ends the process in time."""

    def __init__(self, minutes: float) -> None:
        self._until_s = time.monotonic() + 60 * minutes

    def trial(self, ask: Ask, search: Search | None, *, kept: bool) -> None:
        if kept:
            return
        if time.monotonic() > self._until_s:
            sys.exit("time is over; the same command goes on")
        print(f"{ask.rung}, round {ask.round_number}: {arm_name(ask.arm)}", flush=True)

    def result(self, ask: Ask, measured: Measured, problem: str | None) -> None:
        step = f"{1e3 * measured.step_s:.1f} ms" if measured.step_s else problem
        print(f"    {step}, {measured.wall_s:.1f} s in all", flush=True)


def prepare(folder: Path) -> Tuning:
    """Return the tuning, with few values of each knob so that the grid is small enough."""
    data = folder / "data"
    subprocess.run(
        [sys.executable, "-m", "hpctrain", "data", "prepare", "--source", "stdlib", "--out", data],
        check=True,
    )
    settings = tuple(f"{key}={value}" for key, value in SETTINGS.items())
    tuning = prepare_tuning(
        TuneAsked(
            folder=folder / "tune", np=2, overrides=(*settings, f"data.path={data}"), only=ONLY,
            budget="20m", out=folder / "tuned.toml", oversubscribe=True,
        ),
        os.environ,
    )  # fmt: skip
    few = tuple(replace(knob, values=knob.values[:MOST_VALUES]) for knob in tuning.knobs)
    return replace(tuning, knobs=few)


def tune(tuning: Tuning, folder: Path, watch: Watch) -> tuple[Search, Verdict]:
    """Search as `hpctrain tune` does."""
    store = TuneStore(folder / "tune")
    search = run_search(tuning, store, watch)
    store.close()
    return search, judge(search, tuning.values, tuning.not_chosen)


def all_arms(values: Mapping[str, Sequence[str]]) -> list[Arm]:
    """Return every combination of the values, the defaults among them."""
    columns = [[None, *((knob, label) for label in labels)] for knob, labels in values.items()]
    return [
        tuple(sorted(pair for pair in chosen if pair is not None))
        for chosen in itertools.product(*columns)
    ]


def measure_rounds(
    tuning: Tuning, folder: Path, arms: Sequence[Arm], rung: str, rounds: int, watch: Watch
) -> dict[Arm, list[float]]:
    """Measure each arm once a round, in another order each time; return the median steps (s)."""
    store = TuneStore(folder / "grid")
    write_tuning(tuning, store)
    values: dict[Arm, list[float]] = {arm: [] for arm in arms}
    for number in range(rounds):
        order = list(arms)
        random.Random(number).shuffle(order)
        for arm in order:
            ask = Ask(arm, number, rung, 0)
            measured = store.find(ask)
            watch.trial(ask, None, kept=measured is not None)
            measured = measured or measure_arm(tuning, store, ask, TIMEOUT_S, watch)
            values[arm].append(measured.step_s or float("inf"))
    store.close()
    return values


def extend(values: Mapping[Arm, list[float]], more: Mapping[Arm, Sequence[float]]) -> None:
    """Add further rounds' values to what is known of each arm."""
    for arm, steps_s in more.items():
        values[arm].extend(steps_s)


def fastest(values: Mapping[Arm, Sequence[float]], count: int) -> list[Arm]:
    return sorted(values, key=lambda arm: statistics.median(values[arm]))[:count]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, required=True, help="work directory")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so many")
    parser.add_argument(
        "--grid-rounds", type=int, default=GRID_ROUNDS,
        help=f"trials of each combination (default: {GRID_ROUNDS}; one alone ranks by noise)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="keep raw values and environment as JSON")
    asked = parser.parse_args()
    warn_if_busy()
    watch, folder = Watch(asked.minutes), asked.dir.absolute()
    record = {"what": "tune", **environment(("torch", "horovod")), "settings": SETTINGS}
    tuning = prepare(folder)
    search, verdict = tune(tuning, folder, watch)
    rounds = asked.grid_rounds
    grid = measure_rounds(tuning, folder, all_arms(tuning.values), "grid", rounds, watch)
    extend(grid, measure_rounds(tuning, folder, fastest(grid, BEST), "best", BEST_ROUNDS, watch))
    best = fastest({arm: values for arm, values in grid.items() if len(values) > rounds}, COMPARED)
    arms = list(dict.fromkeys([verdict.arm, *best, DEFAULT]))
    compared = measure_rounds(tuning, folder, arms, "compare", COMPARE_ROUNDS, watch)
    (winner,) = fastest({arm: compared[arm] for arm in best}, 1)
    reached = [b / t for b, t in zip(compared[winner], compared[verdict.arm], strict=True)]
    from_default = [b / t for b, t in zip(compared[winner], compared[DEFAULT], strict=True)]
    record |= {
        "values": {knob: list(labels) for knob, labels in tuning.values.items()},
        "most_steps_a_candidate": max(search.steps.values()),
        "trials": len(search.walls_s),
        "spent_s": search.spent_s,
        "verdict": verdict.as_json(),
        "tune": [
            {key: trial[key] for key in ("arm", "rung", "round", "step_s", "wall_s")}
            for trial in read_trials(folder / "tune")
        ],
        "steps_a_trial": STEPS,
        "grid_s": {arm_name(arm): values for arm, values in grid.items()},
        "compared_s": {arm_name(arm): values for arm, values in compared.items()},
        "grid_best": arm_name(winner),
        "tuned": arm_name(verdict.arm),
        "tuned_reaches": quartiles(reached),
        "default_reaches": quartiles(from_default),
    }
    print("| | median | quartiles |\n|---|---|---|")
    for arm, values in compared.items():
        print(row(arm_name(arm), [1e3 * value for value in values], " ms"))
    print(row(f"tuned ({arm_name(verdict.arm)}) reaches, of {arm_name(winner)}", reached))
    print(row("the defaults reach", from_default))
    met = "met" if quartiles(reached)[1] >= GOAL else "short"
    print(f"goal {GOAL}: {met}; {max(search.steps.values())} steps a candidate at most, "
          f"{len(search.walls_s)} trials, against {len(grid)} combinations")  # fmt: skip
    write_result(asked.out, record)


if __name__ == "__main__":
    main()
