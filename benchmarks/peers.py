"""Is hpctrain's core as fast as its peers? The same model, data, batch and threads on 2 ranks.

    make bench-peers        or: python benchmarks/peers.py --out benchmarks/results/peers.json

A 10.9M-parameter transformer (d 384, 6 layers, 6 heads, 256 tokens), 4 sequences of 128 a rank,
fp32, one thread a rank. Every round starts each contender once, in turn, and takes the median of
its steps without the first ones; ratios are taken round by round. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from measuring import environment, ratios, row, table, warn_if_busy, write_result

from hpctrain.events import EVENTS_FD_VARIABLE
from hpctrain.executor import LocalExecutor
from hpctrain.launch.find_mpi import find_mpi

PEERS = Path(__file__).resolve().parent / "peers"
RANKS = 2
TIMEOUT_S = 900
OURS = "hpctrain"
ALONE = "two unconnected ranks"
HOROVOD = "plain Horovod, mpirun's defaults"
YIELDING = "plain Horovod, yielding"
DDP = "torchrun + DDP, gloo"
GOALS = {HOROVOD: 1.55, YIELDING: 1.06, DDP: 1.07, ALONE: 0.97}
# As in benchmarks/peers/common.py.
SETTINGS = {
    "model.d_model": 384, "model.num_layers": 6, "model.num_heads": 6, "model.vocab_size": 256,
    "model.seq_len": 128, "model.position": "learned", "data.path": "data",
    "train.batch_size_per_rank": 4, "train.device": "cpu", "train.eval_every_steps": 0,
    "train.eval_sequences": 1, "optim.lr": 1e-3, "optim.clip_norm": 1.0, "optim.warmup_steps": 0,
}  # fmt: skip


class Bench:
    """Starts the contenders in a folder that holds the data."""

    def __init__(self, folder: Path, steps: int, settled_after: int) -> None:
        self._folder, self._settled_after = folder, settled_after
        self._runs = 0
        settings = {**SETTINGS, "train.steps": steps}
        self._settings = [f"--set={key}={value}" for key, value in settings.items()]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_MCA_", "HOROVOD_"))}
        self._environ = {
            **kept, "OMP_NUM_THREADS": "1", "PEER_STEPS": str(steps),
            "PEER_TOKENS": str(folder / "data" / "train-00000.bin"),
        }  # fmt: skip
        self._mpi = find_mpi(os.environ, LocalExecutor())
        self._run([sys.executable, "-m", "hpctrain", "data", "prepare", "--source", "stdlib",
                   "--shard-mb", "1024", "--out", "data"])  # fmt: skip

    def ours(self) -> float:
        """As a user starts it: everything on, an event every step."""
        self._runs += 1
        name = f"round-{self._runs}"
        self._run([sys.executable, "-m", "hpctrain", "run", "--np", str(RANKS), "--name", name,
                   "--set=launch.threads_per_rank=1", *self._settings])  # fmt: skip
        return self._median(_step_times_s(self._folder / "runs" / name / "events.jsonl"))

    def alone(self) -> float:
        """The limit: as many ranks side by side that exchange nothing."""
        program = [sys.executable, "-m", "hpctrain.train", *self._settings,
                   "--set=comm.backend=none"]  # fmt: skip
        paths = [self._folder / f"alone-{rank}.jsonl" for rank in range(RANKS)]
        with ExitStack() as files:
            started = []
            for rank, path in enumerate(paths):
                descriptor = files.enter_context(path.open("wb")).fileno()
                variables = {**self._environ, EVENTS_FD_VARIABLE: str(descriptor)}
                seed = f"--set=train.seed={rank}"
                started.append(
                    subprocess.Popen(
                        [*program, seed],
                        cwd=self._folder,
                        env=variables,
                        pass_fds=[descriptor],
                        stdout=subprocess.DEVNULL,
                    )
                )
            codes = [process.wait(TIMEOUT_S) for process in started]
        if any(codes):
            raise SystemExit(f"{ALONE}: failed with exit codes {codes}")
        return statistics.mean(self._median(_step_times_s(path)) for path in paths)

    def horovod(self, *options: str) -> float:
        """A plain Horovod loop under mpirun with `options`."""
        root = os.getuid() == 0 and "openmpi" in self._mpi.flavour
        launcher = [self._mpi.mpirun, *(["--allow-run-as-root"] if root else []), "-np",
                    str(RANKS), "--host", f"localhost:{RANKS}", *options]  # fmt: skip
        return self._peer([*launcher, sys.executable, str(PEERS / "horovod_loop.py")])

    def ddp(self) -> float:
        """A plain DistributedDataParallel loop under torchrun."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return self._peer([*torchrun, f"--nproc-per-node={RANKS}", str(PEERS / "ddp_loop.py")])

    def _peer(self, argv: list[str]) -> float:
        output = self._run(argv)
        (line,) = (line for line in output.splitlines() if line.startswith('{"step_times_s"'))
        return self._median(json.loads(line)["step_times_s"])

    def _run(self, argv: list[str]) -> str:
        done = subprocess.run(
            argv, cwd=self._folder, env=self._environ, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=TIMEOUT_S,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def _median(self, step_times_s: Iterable[float]) -> float:
        return statistics.median(list(step_times_s)[self._settled_after :])


def _step_times_s(events: Path) -> list[float]:
    records = map(json.loads, events.read_text().splitlines())
    return [record["step_time_s"] for record in records if record["event"] == "step"]


def measure(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Return each contender's median step (s), one value a round."""
    contenders: dict[str, Callable[[], float]] = {
        OURS: bench.ours,
        ALONE: bench.alone,
        HOROVOD: bench.horovod,
        YIELDING: lambda: bench.horovod("--mca", "mpi_yield_when_idle", "1"),
        DDP: bench.ddp,
    }
    values: dict[str, list[float]] = {title: [] for title in contenders}
    for number in range(rounds):
        # Whoever comes first in one round comes last in the next: heat and neighbours even out.
        order = list(contenders)[:: -1 if number % 2 else 1]
        for title in order:
            values[title].append(contenders[title]())
            print(f"round {number + 1}: {values[title][-1]:.4f} s  {title}", flush=True)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: 7)")
    parser.add_argument("--steps", type=int, default=40, help="steps of a start (default: 40)")
    parser.add_argument("--settled-after", type=int, default=10, help="first steps left out")
    parser.add_argument("--out", type=Path, help="keep raw values and environment as JSON")
    asked = parser.parse_args()
    if asked.steps <= asked.settled_after:
        parser.error(f"--steps: nothing is left after the first {asked.settled_after}")
    warn_if_busy()
    record = {"what": "peers", **environment(("torch", "horovod", "numpy")),
              "rounds": asked.rounds, "steps": asked.steps}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), asked.steps, asked.settled_after)
        record["step_s"] = values = measure(bench, asked.rounds)
    print(table(values, " s"))
    for peer, goal in GOALS.items():
        print(row(f"{peer} / {OURS} (goal {goal})", ratios(values, peer, OURS)))
    write_result(asked.out, record)


if __name__ == "__main__":
    main()
