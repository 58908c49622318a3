"""How fast do batches come? Ours against a nanoGPT-style loader, on the same memory-mapped file.

    python benchmarks/loader.py            batches one after the other, nothing in between
    python benchmarks/loader.py --waiting  what a step of the tiny model waits for its batch

Rounds are interleaved, so that a disturbance meets both; ratios are taken round by round. With
--out FILE every raw value is kept with hardware, versions and date.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measuring import environment, ratios, row, table, warn_if_busy, write_result

from hpctrain.train.data import TrainingBatches
from hpctrain.train.mixture import Mixture
from hpctrain.train.presets import PRESETS
from hpctrain.train.shard_writer import ShardWriter
from hpctrain.train.shards import SCHEMA, TRAIN, VALIDATION, DataIndex, Split, Windows

CPU = torch.device("cpu")
OURS, THEIRS = "hpctrain", "nanoGPT-style"
TOKENS = 32 * 1024 * 1024
SHAPES = {"nanoGPT's default": (12, 1024), "demo": (4, 128), "many short": (64, 256)}
BATCHES_PER_ROUND = 200
STEPS_PER_ROUND = 200


def write_tokens(folder: Path, vocab_size: int = 50257) -> DataIndex:
    """Write random tokens, by default of GPT-2's vocabulary, as one shard."""
    writer = ShardWriter(folder, TRAIN, "uint16", 1 << 30)
    writer.write(np.random.default_rng(0).integers(0, vocab_size, TOKENS, dtype=np.uint16))
    splits = {TRAIN: writer.close(), VALIDATION: Split(tokens=0, documents=0, shards=())}
    return DataIndex(
        schema=SCHEMA, tokenizer="random", vocab_size=vocab_size, dtype="uint16", separator=0,
        splits=splits,
    )  # fmt: skip


def nanogpt_style(path: Path, batch: int, seq_len: int) -> Callable[[], object]:
    """Random starts, a memory map opened anew for each batch, a row at a time, twice."""

    def read() -> object:
        tokens = np.memmap(path, dtype=np.uint16, mode="r")
        starts = torch.randint(len(tokens) - seq_len, (batch,)).tolist()
        pairs = [
            [torch.from_numpy(tokens[at : at + seq_len].astype(np.int64)) for at in (s, s + 1)]
            for s in starts
        ]
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])

    return read


def ours(samples: Mixture, batch: int) -> Callable[[], object]:
    """The trainer's own batches, step by step."""
    batches = TrainingBatches(samples, global_batch=batch, seed=1, rank=0, size=1, device=CPU)
    steps = itertools.count()
    return lambda: batches.read(next(steps), 1)


def measure_batches(rounds: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Return the time of a batch (s), by shape and loader, one value a round."""
    index = write_tokens(folder)
    path = folder / index.splits[TRAIN].shards[0].file
    found = {}
    for title, (batch, seq_len) in SHAPES.items():
        samples = Mixture([Windows(folder, index, TRAIN, seq_len)])
        readers = {
            THEIRS: nanogpt_style(path, batch, seq_len),
            OURS: ours(samples, batch),
        }
        values: dict[str, list[float]] = {name: [] for name in readers}
        for number in range(rounds + 1):
            for name, read in readers.items():
                started_s = time.perf_counter()
                for _ in range(BATCHES_PER_ROUND):
                    read()
                if number:  # the first round brings the file into memory
                    values[name].append((time.perf_counter() - started_s) / BATCHES_PER_ROUND)
        found[f"{title}: batch {batch}, seq_len {seq_len}"] = values
    return found


def measure_waiting(rounds: int, folder: Path) -> dict[str, list[float]]:
    """Return which part of a step of the tiny model waits for data, one value a round."""
    from hpctrain.train.measure import StepClock
    from hpctrain.train.model import build_model, sum_token_losses
    from hpctrain.train.presets import ModelSize

    size = ModelSize(**PRESETS["tiny"], position="rope")
    index = write_tokens(folder, size.vocab_size)
    samples = Mixture([Windows(folder, index, TRAIN, size.seq_len)])
    batches = TrainingBatches(samples, global_batch=4, seed=1, rank=0, size=1, device=CPU)
    model, clock = build_model(size, seed=0), StepClock(CPU)
    values: list[float] = []
    for number in range(rounds + 1):
        clock.restart()
        for step in range(STEPS_PER_ROUND):
            clock.start_step()
            ((inputs, targets),) = batches.read(STEPS_PER_ROUND * number + step, 1)
            clock.mark("data")
            sum_token_losses(model(inputs), targets).backward()
            clock.mark("backward")
        step_s, phases_s = clock.read()
        if number:
            values.append(phases_s["data"] / step_s)
    return {"waiting / step": values}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--waiting", action="store_true", help="what a training step waits")
    parser.add_argument("--rounds", type=int, default=21, help="rounds (default: 21)")
    parser.add_argument("--out", type=Path, help="keep raw values and environment as JSON")
    asked = parser.parse_args()
    warn_if_busy()
    torch.set_num_threads(1)
    record = {"what": "waiting" if asked.waiting else "loader",
              **environment(("torch", "numpy"), mpi=False)}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        if asked.waiting:
            record["values"] = waiting = measure_waiting(asked.rounds, Path(folder))
            print(table(waiting, ""))
        else:
            record["values_s"] = found = measure_batches(asked.rounds, Path(folder))
            for shape, values in found.items():
                micro = {name: [1e6 * v for v in numbers] for name, numbers in values.items()}
                print(f"\n{shape}\n{table(micro, ' µs')}")
                print(row(f"{THEIRS} / {OURS}", ratios(values, THEIRS, OURS)))
    write_result(asked.out, record)


if __name__ == "__main__":
    main()
