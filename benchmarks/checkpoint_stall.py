"""What does a step wait for a checkpoint, against torch.save of the same state?

    python benchmarks/checkpoint_stall.py --np 2 --out benchmarks/results/checkpoint-stall.json

Each rank of an mpirun holds the model and AdamW's moments. In turn, `rounds` times: the copy that
a training step waits for (hpctrain.train.snapshot), and rank 0's torch.save of the whole state
while the other ranks wait, which is what a plain training script does. Without fsync, which
torch.save does not do. Prints medians, quartiles and the ratio pair by pair; the goal is 1/15.
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
from pathlib import Path

from measuring import environment, ratios, row, table, warn_if_busy, write_result

from hpctrain.cores import count_cores
from hpctrain.executor import LocalExecutor
from hpctrain.launch.find_mpi import find_mpi

ROOT = Path(__file__).resolve().parent.parent
GOAL = 15.0


def measure(rounds: int, folder: Path, size: dict[str, int]) -> None:
    """What each rank does; rank 0 prints the times (s) as JSON."""
    import torch

    from hpctrain.config import Config
    from hpctrain.train.communicator import open_communicator
    from hpctrain.train.device import choose_device
    from hpctrain.train.exchange import BucketExchange
    from hpctrain.train.model import build_model
    from hpctrain.train.optimizer import make_optimizer
    from hpctrain.train.presets import ModelSize
    from hpctrain.train.snapshot import Snapshot
    from hpctrain.train.state import model_pieces, optimizer_pieces, take_share

    comm = open_communicator("horovod")
    device = choose_device("cpu", comm.local_rank, comm.local_size)
    model = build_model(ModelSize(**size, position="rope"), seed=1)
    exchange = BucketExchange(model, comm, 25.0)
    optimizer = make_optimizer(exchange.pieces, Config().optim)
    pieces = [*model_pieces(model), *optimizer_pieces(model, optimizer)]
    snapshot = Snapshot(take_share(pieces, comm.rank, comm.size), device)
    optimizer.step()
    times: dict[str, list[float]] = {"torch.save": [], "copy": []}
    for _ in range(rounds):
        comm.barrier()
        start_s = time.perf_counter()
        if comm.rank == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, folder / "state.pt")
        comm.barrier()
        times["torch.save"].append(time.perf_counter() - start_s)
        for bucket in exchange.buckets:  # what a step leaves in the cache, not what was just read
            bucket.gradients.add_(0)
        comm.barrier()
        start_s = time.perf_counter()
        snapshot.take()
        comm.barrier()
        times["copy"].append(time.perf_counter() - start_s)
    if comm.rank == 0:
        total = sum(piece.values.nbytes for piece in pieces)
        print(json.dumps({"state_bytes": total, "values_s": times}), flush=True)
    comm.shutdown()


def start(np: int, rounds: int) -> dict:
    """Run the ranks; return what rank 0 measured."""
    mpi = find_mpi(os.environ, LocalExecutor())
    with tempfile.TemporaryDirectory() as folder:
        argv = [mpi.mpirun, "-np", str(np), "--host", f"localhost:{np}", "--bind-to", "none",
                "--mca", "mpi_yield_when_idle", "1",
                sys.executable, __file__, "--rank", folder, "--rounds", str(rounds)]  # fmt: skip
        environ = {
            **os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMP_NUM_THREADS": str(max(1, count_cores() // np)), "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--np", type=int, default=2, help="ranks")
    parser.add_argument("--rounds", type=int, default=15, help="pairs")
    parser.add_argument("--out", type=Path, help="keep raw values and environment as JSON")
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    # 10.7 million parameters; with the moments 128 MB.
    size = {"d_model": 384, "num_layers": 6, "num_heads": 6, "vocab_size": 256, "seq_len": 128}
    if asked.rank:
        measure(asked.rounds, asked.rank, size)
        return
    warn_if_busy()
    record = {"what": "checkpoint_stall", "np": asked.np, "model": size,
              **environment(("torch", "horovod"))}  # fmt: skip
    record |= start(asked.np, asked.rounds)
    values = record["values_s"]
    shares = ratios(values, "torch.save", "copy")
    print(f"{record['state_bytes'] / 1e6:.0f} MB over {asked.np} rank(s)")
    print(table(values, " s"))
    print(row("torch.save / copy", shares))
    met = "met" if statistics.median(shares) >= GOAL else "not met"
    print(f"goal: at least {GOAL:g}: {met}")
    write_result(asked.out, record)


if __name__ == "__main__":
    main()
