"""What does everything around a training loop cost? hpctrain, all of it on, against a bare loop.

    python benchmarks/bare.py --out benchmarks/results/everything-on.json
    python benchmarks/bare.py --preset small --precision bf16 --compile --batch 32 --steps 151

One device, the same model, batch and text. hpctrain is started as a user starts it: `hpctrain run
--np 1`, Horovod, an event every step, progress, a checkpoint every 100 steps; the bare loop
(benchmarks/peers/bare_loop.py) does nothing but train. Each round starts both, in turn; a step's
time is the wall clock's from the first timed step to the last, whatever came in between. The goal
is at most 1.01 with steps of 100 ms. On a GPU it also prints the MFU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from measuring import environment, ratios, row, table, warn_if_busy, write_result

from hpctrain.config import parse_config
from hpctrain.gpu_peaks import peak_flops
from hpctrain.train.flops import flops_per_token, utilization
from hpctrain.train.presets import resolve_model
from hpctrain.train.shards import open_data

BARE = Path(__file__).resolve().parent / "peers" / "bare_loop.py"
TIMEOUT_S = 1800
OURS, THEIRS = "hpctrain, everything on", "a bare loop"
# 10.9M parameters; with 1 sequence about 100 ms a step on one core of a server of 2024.
DEFAULT_SIZE = {"d_model": 384, "num_layers": 6, "num_heads": 6, "vocab_size": 256, "seq_len": 128}


class Bench:
    """Starts both in a folder that holds the data."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self._folder, self._asked, self._runs = folder, asked, 0
        model = {"preset": asked.preset} if asked.preset else DEFAULT_SIZE
        self._settings = {
            **{f"model.{key}": value for key, value in model.items()}, "data.path": "data",
            "train.batch_size_per_rank": asked.batch, "train.steps": asked.steps,
            "train.precision": asked.precision, "train.device": asked.device,
            "train.compile": str(asked.compile).lower(), "train.eval_every_steps": 0,
            "train.eval_sequences": 1, "optim.warmup_steps": 0,
            "checkpoint.every_steps": asked.checkpoint_every, "launch.threads_per_rank": 1,
        }  # fmt: skip
        words = [f"{key}={value}" for key, value in self._settings.items()]
        self.size = resolve_model(parse_config("", overrides=words).model)
        vocabulary = [] if self.size.vocab_size == 256 else ["--tokenizer", "bpe"]
        self._run([sys.executable, "-m", "hpctrain", "data", "prepare", "--source", "stdlib",
                   *vocabulary, "--shard-mb", "1024", "--out", "data"])  # fmt: skip
        self._dtype = open_data(folder / "data").dtype

    def ours(self) -> float:
        """Return the seconds of a step."""
        self._runs += 1
        path = self._folder / "runs" / f"round-{self._runs}"
        settings = [f"--set={key}={value}" for key, value in self._settings.items()]
        self._run([sys.executable, "-m", "hpctrain", "run", "--np", "1", "--oversubscribe",
                   "--name", path.name, *settings])  # fmt: skip
        events = map(json.loads, (path / "events.jsonl").read_text().splitlines())
        times_s = {event["step"]: event["time_s"] for event in events if event["event"] == "step"}
        first, last = self._asked.settled_after, self._asked.steps
        return (times_s[last] - times_s[first]) / (last - first)

    def bare(self) -> float:
        """Return the seconds of a step."""
        asked = self._asked
        settings = {
            "size": dataclasses.asdict(self.size), "batch": asked.batch, "steps": asked.steps,
            "settled_after": asked.settled_after, "precision": asked.precision,
            "compile": asked.compile, "device": asked.device, "dtype": self._dtype,
        }  # fmt: skip
        output = self._run(
            [sys.executable, str(BARE)],
            PEER_SETTINGS=json.dumps(settings),
            PEER_TOKENS=str(self._folder / "data" / "train-00000.bin"),
        )
        return json.loads(output.splitlines()[-1])["step_s"]

    def _run(self, argv: list[str], **variables: str) -> str:
        done = subprocess.run(
            argv, cwd=self._folder, env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout


def measure(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Return both's seconds a step, one value a round."""
    contenders = {OURS: bench.ours, THEIRS: bench.bare}
    values: dict[str, list[float]] = {title: [] for title in contenders}
    for number in range(rounds):
        for title in list(contenders)[:: -1 if number % 2 else 1]:
            values[title].append(contenders[title]())
            print(f"round {number + 1}: {values[title][-1]:.4f} s  {title}", flush=True)
    return values


def mfu_of(values: dict[str, list[float]], bench: Bench, asked: argparse.Namespace) -> Any:
    """Return each contender's MFU, one value a round; None where the device's peak is unknown."""
    name = torch.cuda.get_device_name() if asked.device == "cuda" else "cpu"
    peak = peak_flops(name, asked.precision)
    if peak is None:
        return None
    tokens, flops = asked.batch * bench.size.seq_len, flops_per_token(bench.size)
    return {
        title: [utilization(tokens / step_s, flops, peak, size=1) for step_s in steps_s]
        for title, steps_s in values.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--preset", help="the model (default: 10.9M parameters, bytes)")
    parser.add_argument("--batch", type=int, default=1, help="sequences a step (default: 1)")
    parser.add_argument("--precision", default="fp32", help="train.precision (default: fp32)")
    parser.add_argument("--compile", action="store_true", help="both compile the model")
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu", help="cpu or cuda")
    parser.add_argument("--steps", type=int, default=351, help="steps of a start (default: 351)")
    parser.add_argument("--settled-after", type=int, default=20, help="first steps left out")
    parser.add_argument("--checkpoint-every", type=int, default=100, help="steps (default: 100)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds (default: 9)")
    parser.add_argument("--out", type=Path, help="keep raw values and environment as JSON")
    asked = parser.parse_args()
    if not 0 < asked.settled_after < asked.steps:
        parser.error(f"--steps: nothing is left after the first {asked.settled_after}")
    warn_if_busy()
    settings = {key: value for key, value in vars(asked).items() if key != "out"}
    record = {"what": "bare", **environment(("torch", "horovod", "numpy")), **settings}
    if asked.device == "cuda":
        record["gpu"] = torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), asked)
        record["step_s"] = values = measure(bench, asked.rounds)
        record["mfu"] = mfu_of(values, bench, asked)
    print(table(values, " s"))
    print(row(f"{OURS} / {THEIRS}", ratios(values, OURS, THEIRS)))
    for title, parts in (record["mfu"] or {}).items():
        print(row(f"MFU, {title}", parts))
    write_result(asked.out, record)


if __name__ == "__main__":
    main()
