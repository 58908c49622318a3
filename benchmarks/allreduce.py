"""How fast are 118 MB of gradients summed over 2 ranks, against Horovod and against plain C?

    python benchmarks/allreduce.py --out benchmarks/results/allreduce.json

All gradients of a 29.4M-parameter transformer are there at once, in fp32. Contenders:
- hpctrain's buckets (25 MB), through the trainer's own exchange and communicator, with Horovod's
  cycle of 1 ms, as for short steps;
- the same, each bucket in one piece, to see what the pieces are worth;
- the same as the first, without a core for each of Horovod's threads;
- the same as the first, with a cycle of 10 ms, which the trainer chooses for long steps;
- Horovod with its defaults, a tensor a parameter (fusion buffer 128 MB, cycle 1 ms);
- allreduce.c beside this file: MPI_Allreduce in chunks of several sizes, the best of which counts.

Every round starts each once, in turn, under the same mpirun options; a start's figure is the
median of its repeats, a repeat's time that of the slower rank. Every element is checked. Run it on
a quiet machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import environment, ratios, row, table, warn_if_busy, write_result

from hpctrain.bench.allreduce.results import busbw_gb_per_s
from hpctrain.executor import LocalExecutor
from hpctrain.launch.find_mpi import MpiInstall, find_mpi

ROOT = Path(__file__).resolve().parent.parent
RANKS, TIMEOUT_S, WARM_UP = 2, 300, 3
OURS, ONE_PIECE = "hpctrain's buckets", "hpctrain's buckets in one piece each"
UNPINNED, HOROVOD = "hpctrain's buckets, threads not pinned", "Horovod, defaults"
PLAIN_C = "plain C, best chunk"
GOALS = {HOROVOD: 3.0, PLAIN_C: 0.85}
LONG_CYCLE = "hpctrain's buckets, cycle 10 ms"
KINDS = {
    "buckets": OURS, "one-piece": ONE_PIECE, "unpinned": UNPINNED, "long-cycle": LONG_CYCLE,
    "horovod": HOROVOD,
}  # fmt: skip
SHAPE = {"d_model": 512, "num_layers": 9, "num_heads": 8, "vocab_size": 2048, "seq_len": 128}
BUCKET_MB = 25.0
CHUNKS = (*(1 << power for power in range(18, 24)), 25 << 20, 1 << 30)  # bytes; the last: whole


def rank_main(kind: str, repeats: int) -> None:
    """What each rank of a contender in Python does; rank 0 prints the times (s) as JSON."""
    import torch

    from hpctrain.bench.allreduce.worker_pattern import Pattern
    from hpctrain.train.model import build_model
    from hpctrain.train.presets import ModelSize

    model = build_model(ModelSize(**SHAPE, position="learned"), seed=1)
    gradients, exchange, hvd = (
        start_horovod(model) if kind == "horovod" else start_buckets(model, kind)
    )
    pattern = Pattern(hvd.rank(), hvd.size())
    times_s, wrong = [], 0
    for repeat in range(-WARM_UP, repeats):
        for number, gradient in enumerate(gradients):
            pattern.fill(gradient.view(-1).numpy(), WARM_UP + repeat + number)
        hvd.barrier()
        start_s = time.perf_counter()
        exchange()
        elapsed_s = time.perf_counter() - start_s
        slowest_s = hvd.allreduce(torch.tensor([elapsed_s], dtype=torch.float64), op=hvd.Max)
        if repeat >= 0:
            times_s.append(slowest_s.item())
        for number, gradient in enumerate(gradients):
            wrong += pattern.count_wrong(gradient.view(-1).numpy(), WARM_UP + repeat + number)
    wrong = int(hvd.allreduce(torch.tensor([float(wrong)]), op=hvd.Sum).item())
    if hvd.rank() == 0:
        bytes_ = sum(gradient.nbytes for gradient in gradients)
        print(json.dumps({"bytes": bytes_, "times_s": times_s, "wrong": wrong}), flush=True)
    hvd.shutdown()


def start_buckets(model: Any, kind: str) -> tuple[list[Any], Callable[[], object], Any]:
    """Return the gradients, and what sums them as hpctrain's trainer does."""
    from hpctrain.train import comm_horovod
    from hpctrain.train.communicator import open_communicator
    from hpctrain.train.exchange import BucketExchange

    if kind == "unpinned":
        comm_horovod.choose_thread_cores = lambda *_: ""
    if kind == "one-piece":
        comm_horovod.PIECE_BYTES = 1 << 40
    if kind == "long-cycle":
        os.environ["HOROVOD_CYCLE_TIME"] = f"{comm_horovod.LONGEST_CYCLE_MS:.1f}"
    comm = open_communicator("horovod", "cpu")
    import horovod.torch as hvd

    buckets = BucketExchange(model, comm, BUCKET_MB)

    def exchange() -> None:
        with buckets.micro_step(last=True):
            pass  # every gradient is there
        buckets.finish()

    return [bucket.gradients for bucket in buckets.buckets], exchange, hvd


def start_horovod(model: Any) -> tuple[list[Any], Callable[[], object], Any]:
    """Return the gradients, and what sums them as hvd.DistributedOptimizer does."""
    import horovod.torch as hvd
    import torch

    hvd.init()
    named = [(name, torch.zeros_like(p)) for name, p in model.named_parameters()][::-1]

    def exchange() -> None:
        handles = [hvd.allreduce_async_(g, op=hvd.Sum, name=name) for name, g in named]
        for handle in handles:
            hvd.synchronize(handle)

    return [gradient for _, gradient in named], exchange, hvd


class Bench:
    """Starts the contenders."""

    def __init__(self, folder: Path, repeats: int) -> None:
        self._repeats = repeats
        self._mpi = find_mpi(os.environ, LocalExecutor())
        self._program = compile_c(self._mpi, folder)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_MCA_", "HOROVOD_"))}
        self._environ = {
            **kept, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        self.bytes_ = 0
        self.chunks_s: dict[str, list[float]] = {str(chunk): [] for chunk in CHUNKS}

    def python(self, kind: str) -> float:
        """Return a contender's median time (s)."""
        argv = [sys.executable, __file__, "--rank", kind, "--repeats", str(self._repeats)]
        found = json.loads(self._run(argv).splitlines()[-1])
        self._check(kind, found["wrong"])
        self.bytes_ = max(self.bytes_, found["bytes"])
        return statistics.median(found["times_s"])

    def plain_c(self) -> float:
        """Return the median time (s) of the chunk size that was best this time."""
        chunks = [str(min(chunk, self.bytes_)) for chunk in CHUNKS]
        output = self._run([str(self._program), str(self.bytes_), str(self._repeats), *chunks])
        medians = []
        for chunk, line in zip(self.chunks_s, output.splitlines(), strict=True):
            _, *times_s, wrong = line.split()
            self._check(f"C in chunks of {chunk}", int(wrong))
            medians.append(statistics.median(map(float, times_s)))
            self.chunks_s[chunk].append(medians[-1])
        return min(medians)

    def _check(self, what: str, wrong: int) -> None:
        if wrong:
            raise SystemExit(f"{what}: {wrong} wrong elements; expected none")

    def _run(self, argv: list[str]) -> str:
        options = ["--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]
        launcher = [self._mpi.mpirun, "-np", str(RANKS), "--host", f"localhost:{RANKS}"]
        done = subprocess.run(
            [*launcher, *options, *argv], env=self._environ, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=TIMEOUT_S,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout


def compile_c(mpi: MpiInstall, folder: Path) -> Path:
    """Compile allreduce.c with the mpicc that belongs to mpirun; return the program."""
    compiler = Path(mpi.mpirun).with_name("mpicc")
    if not compiler.exists():
        raise SystemExit(f"{compiler}: missing; expected the compiler wrapper beside mpirun")
    program = folder / "allreduce"
    source = Path(__file__).with_suffix(".c")
    subprocess.run([str(compiler), "-O3", "-Wall", "-o", str(program), str(source)], check=True)
    return program


def measure(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Return each contender's median time (s), one value a round."""
    contenders: dict[str, Callable[[], float]] = {
        title: functools.partial(bench.python, kind) for kind, title in KINDS.items()
    }
    contenders[PLAIN_C] = bench.plain_c
    values: dict[str, list[float]] = {title: [] for title in contenders}
    for number in range(rounds):
        # Whoever comes first in one round comes last in the next; C is always the last, for it
        # takes the number of bytes from the others.
        order = list(KINDS.values())[:: -1 if number % 2 else 1]
        for title in (*order, PLAIN_C):
            values[title].append(contenders[title]())
            print(f"round {number + 1}: {1e3 * values[title][-1]:.1f} ms  {title}", flush=True)
    return values


def ratio_rows(busbw: dict[str, list[float]]) -> list[str]:
    """Return the bar's ratios; beside them those of what the bar does not hold for."""
    lines = []
    for ours in (OURS, UNPINNED, LONG_CYCLE):
        for other, goal in GOALS.items():
            bar = f" (goal {goal:g})" if ours == OURS else ""
            lines.append(row(f"{ours} / {other}{bar}", ratios(busbw, ours, other)))
    lines += [
        row(f"{OURS} / {other}", ratios(busbw, OURS, other)) for other in (ONE_PIECE, UNPINNED)
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--repeats", type=int, default=11, help="repeats of a start (default: 11)")
    parser.add_argument("--out", type=Path, help="keep raw values and environment as JSON")
    parser.add_argument("--rank", choices=list(KINDS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rank:
        rank_main(asked.rank, asked.repeats)
        return
    warn_if_busy()
    record = {"what": "allreduce", **environment(("torch", "horovod")), "ranks": RANKS,
              "rounds": asked.rounds, "repeats": asked.repeats}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), asked.repeats)
        values = measure(bench, asked.rounds)
    busbw = {
        title: [busbw_gb_per_s(bench.bytes_, each, RANKS) for each in times_s]
        for title, times_s in values.items()
    }
    record |= {"bytes": bench.bytes_, "time_s": values, "c_chunks_time_s": bench.chunks_s}
    print(f"{bench.bytes_ / 1e6:.0f} MB over {RANKS} ranks, busbw")
    print(table(busbw, " GB/s"))
    print("\n".join(ratio_rows(busbw)))
    write_result(asked.out, record)


if __name__ == "__main__":
    main()
