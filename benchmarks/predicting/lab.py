"""Lab cases for predict.py: nodes with shaped links, the trainer with timed layers on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpctrain.bench.samples import Sample, read_sample
from hpctrain.bench.trial import Trial, run_trial
from hpctrain.hosts import Host

NODES, LAB = 4, "predict"
WARMUP_STEPS, TIMED_STEPS = 5, 11
# Open MPI's TCP sends messages up to this without asking first. With its default of 64 KiB the
# answer waits behind data that go the other way, so that an exchange takes once or twice as long
# as it should, by chance.
EAGER_BYTES = 32 << 20
EAGER = ("--mca", "btl_tcp_eager_limit", str(EAGER_BYTES),
         "--mca", "btl_tcp_rndv_eager_limit", str(EAGER_BYTES))  # fmt: skip
RING = ("--mca", "coll_tuned_use_dynamic_rules", "1", "--mca", "coll_tuned_allreduce_algorithm",
        "4")  # fmt: skip
ALLREDUCE_BYTES = (8, 65_536, 262_144, 1_048_576, 4_194_304)
ALLREDUCE_S = 1.2  # a size, about
WARMING, FEWEST, MOST = 3, 5, 200
FACTORY = "hpctrain.bench.worker_timed_model"


@dataclass(frozen=True, slots=True)
class Shape:
    """Layers of the timed model: KiB of gradients and ms of computing of each."""

    layers: int
    layer_kb: int
    forward_ms: float
    backward_ms: float
    bucket_mb: float

    @property
    def variable(self) -> str:
        return (f"layers={self.layers},layer_kb={self.layer_kb},"
                f"forward_ms={self.forward_ms},backward_ms={self.backward_ms}")  # fmt: skip


class LabRuns:
    """Runs on a lab of four nodes, one rank each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = folder / "state" / "hpctrain" / "clusters" / LAB
        self._count = 0

    def shape(self, bandwidth: str, latency: str) -> None:
        """Make the lab, or change its links."""
        self._hpctrain("up", "--provider", "lab", "--nodes", str(NODES), "--yes",
                       "--bandwidth", bandwidth, "--latency", latency)  # fmt: skip

    def remove(self) -> None:
        self._hpctrain("down", "--yes")

    def train(self, np: int, shape: Shape, algorithm: str) -> Sample:
        """Train the timed model on the first `np` nodes."""
        words = EAGER + (RING if algorithm == "ring" else ())
        run = run_trial(self._trial(
            np, f"train-{np}",
            overrides=(
                f"model.factory={FACTORY}:build", f"data.factory={FACTORY}:open_samples",
                f'launch.env={{HPCTRAIN_TIMED_MODEL = "{shape.variable}"}}',
                f"launch.mpirun_args={json.dumps(words)}", 'launch.forward=["PYTHONPATH"]',
                # A rank has one core's worth at most here; more threads would wait for each other.
                "launch.threads_per_rank=1", "model.seq_len=8", "model.vocab_size=256",
                "train.batch_size_per_rank=1", "train.device=cpu",
                f"comm.bucket_mb={shape.bucket_mb}", f"train.steps={WARMUP_STEPS + TIMED_STEPS}",
            ),
        ))  # fmt: skip
        return read_sample(run, WARMUP_STEPS)

    def allreduce(self, np: int) -> list[tuple[int, list[float]]]:
        """Return for each size the seconds of MPI all-reduces on the first `np` nodes."""
        out = self.folder / "allreduce.json"
        run_trial(self._trial(
            np, f"allreduce-{np}", program=(sys.executable, __file__, str(out)),
            overrides=(f"launch.mpirun_args={json.dumps(EAGER)}",
                       'launch.forward=["PYTHONPATH"]', "launch.threads_per_rank=1"),
        ))  # fmt: skip
        return [(size, seconds) for size, seconds in json.loads(out.read_text())]

    def _trial(self, np: int, name: str, **more: object) -> Trial:
        self._count += 1
        return Trial(
            name=f"{name}-{self._count}", runs_dir=self.folder / "runs", np=np,
            hosts=tuple(Host(f"{LAB}-n{number + 1}", slots=1) for number in range(np)),
            ssh_config=self.cluster / "ssh_config", timeout_s=240.0, **more,
        )  # fmt: skip

    def _hpctrain(self, verb: str, *arguments: str) -> None:
        argv = [sys.executable, "-m", "hpctrain", "cluster", verb, "--name", LAB, *arguments]
        env = {**os.environ, "XDG_STATE_HOME": str(self.folder / "state")}
        subprocess.run(argv, check=True, capture_output=True, env=env, cwd=self.folder)


@contextmanager
def lab_runs(folder: Path) -> Iterator[LabRuns]:
    """Have runs on a lab, which is removed afterwards."""
    runs = LabRuns(folder)
    try:
        yield runs
    finally:
        runs.remove()


def measure_allreduce(out: Path) -> None:
    """What each rank does: all-reduces one right after the other, so that no token bucket is full,
    and with nothing in between by which one rank could come later than the other."""
    import numpy as np
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    found = []
    for size in ALLREDUCE_BYTES:
        values = np.ones(max(1, size // 4), np.float32)
        total = np.empty_like(values)

        def run(count: int, values: Any = values, total: Any = total) -> list[float]:
            seconds = []
            for _ in range(count):
                start_s = time.perf_counter()
                comm.Allreduce(values, total)
                seconds.append(time.perf_counter() - start_s)
            return seconds

        once_s = run(WARMING)[-1]
        found.append((size, run(comm.bcast(max(FEWEST, min(MOST, int(ALLREDUCE_S / once_s)))))))
    if comm.rank == 0:
        out.write_text(json.dumps([(size, seconds[1:]) for size, seconds in found]))


if __name__ == "__main__":
    measure_allreduce(Path(sys.argv[1]))
