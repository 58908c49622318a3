"""What does a launch cost, and what does yielding in MPI gain? Measured in interleaved pairs.

    python benchmarks/launch.py overhead     hpctrain run -- true against bare mpirun
    python benchmarks/launch.py yield        the demo's step time without and with the yield rule
    python benchmarks/launch.py cycle        steps of 0.4 s at Horovod's own cycle and at ours
    python benchmarks/launch.py help         hpctrain --help

Prints medians and quartiles, and with --out FILE keeps every raw value with hardware, versions and
date. Machines differ and are noisy: compare ratios, and run it on a quiet one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from measuring import environment, ratios, row, table, write_result

from hpctrain.cores import count_cores
from hpctrain.executor import LocalExecutor
from hpctrain.launch.find_mpi import find_mpi

ROOT = Path(__file__).resolve().parent.parent
HPCTRAIN = [sys.executable, "-m", "hpctrain"]
SETTLED_AFTER_STEPS = 10


def wall_time_s(argv: list[str], folder: Path) -> float:
    """Return how long a command takes."""
    started_s = time.perf_counter()
    subprocess.run(argv, cwd=folder, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - started_s


def measure_overhead(rounds: int, folder: Path) -> dict[str, list[float]]:
    """Start ``true`` on all slots, bare and through hpctrain, in turn (s)."""
    mpi = find_mpi(os.environ, LocalExecutor())
    np = str(count_cores())
    root = ["--allow-run-as-root"] if os.getuid() == 0 and "openmpi" in mpi.flavour else []
    bare = [mpi.mpirun, *root, "--np", np, "--host", f"localhost:{np}", "--bind-to", "none", "true"]
    ours = [*HPCTRAIN, "run", "--np", np, "--", "true"]
    values: dict[str, list[float]] = {"bare mpirun": [], "hpctrain run": []}
    for _ in range(rounds):
        values["bare mpirun"].append(wall_time_s(bare, folder))
        values["hpctrain run"].append(wall_time_s(ours, folder))
    return values


def measure_help(rounds: int, folder: Path) -> dict[str, list[float]]:
    """Ask for help (s)."""
    return {"hpctrain --help": [wall_time_s([*HPCTRAIN, "--help"], folder) for _ in range(rounds)]}


def measure_yield(rounds: int, folder: Path) -> dict[str, list[float]]:
    """Train the demo on 2 ranks, without and with the yield rule, in turn; median step (s)."""
    ways = {"mpirun's default": {"OMPI_MCA_mpi_yield_when_idle": "0"}, "yielding": {}}
    return measure_steps(rounds, folder, ways, {"train.steps": 60})


def measure_cycle(rounds: int, folder: Path) -> dict[str, list[float]]:
    """Train the peers' model on 2 ranks, with cycles of 1 ms and as chosen; median step (s)."""
    shape = {"d_model": 384, "num_layers": 6, "num_heads": 6}
    settings = {f"model.{key}": value for key, value in shape.items()}
    ways = {"cycles of 1 ms": {"HOROVOD_CYCLE_TIME": "1"}, "as chosen": {}}
    sizes = {"train.steps": 50, "train.batch_size_per_rank": 4, "launch.threads_per_rank": 1}
    return measure_steps(rounds, folder, ways, {**settings, **sizes})


def measure_steps(
    rounds: int, folder: Path, ways: Mapping[str, Mapping[str, str]], settings: Mapping[str, object]
) -> dict[str, list[float]]:
    """Train the demo with other settings on 2 ranks, each of `ways` (variables) in turn.

    Returns:
        Each way's median steps (s), one value a round.
    """
    data = ["data", "prepare", "--source", "stdlib", "--tokenizer", "bytes"]
    subprocess.run([*HPCTRAIN, *data, "--out", "data/stdlib-bytes"], cwd=folder, check=True)
    words = [f"--set={key}={value}" for key, value in settings.items()]
    values: dict[str, list[float]] = {title: [] for title in ways}
    for number in range(rounds):
        for place, (title, variables) in enumerate(ways.items()):
            name = f"way-{place}-round-{number}"
            subprocess.run(
                [*HPCTRAIN, "run", "--np", "2", "--config", "demo", "--name", name,
                 "--set=train.eval_every_steps=0", *words],
                cwd=folder, env={**os.environ, **variables}, check=True, capture_output=True,
            )  # fmt: skip
            events = (folder / "runs" / name / "events.jsonl").read_text().splitlines()
            steps = [e["step_time_s"] for e in map(json.loads, events) if e["event"] == "step"]
            values[title].append(statistics.median(steps[SETTLED_AFTER_STEPS:]))
    return values


def summary(values: dict[str, list[float]]) -> str:
    """Return a Markdown table: medians with quartiles, differences and ratios pair by pair."""
    lines = [table(values, " s")]
    if len(values) == 2:
        first, second = values
        less = [b - a for a, b in zip(values[first], values[second], strict=True)]
        lines.append(row(f"{second} less {first}", less, " s"))
        lines.append(row(f"{first} / {second}", ratios(values, first, second)))
    return "\n".join(lines)


MEASUREMENTS: dict[str, tuple[Callable[[int, Path], dict[str, list[float]]], int]] = {
    "overhead": (measure_overhead, 21),
    "yield": (measure_yield, 5),
    "cycle": (measure_cycle, 7),
    "help": (measure_help, 21),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=MEASUREMENTS)
    parser.add_argument("--rounds", type=int, help="pairs (default: 21, yield 5, cycle 7)")
    parser.add_argument("--out", type=Path, help="keep raw values and environment as JSON")
    asked = parser.parse_args()
    measure, rounds = MEASUREMENTS[asked.what]
    record = {"what": asked.what, **environment()}
    with tempfile.TemporaryDirectory() as folder:
        record["values_s"] = values = measure(asked.rounds or rounds, Path(folder))
    print(summary(values))
    write_result(asked.out, record)


if __name__ == "__main__":
    main()
