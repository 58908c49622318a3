"""The memory that `hpctrain estimate` tells, against the true peak of real trainings on the CPU."""

import dataclasses
import json
import sys
from pathlib import Path

import launching
import pytest
import tiers
from estimating import Case

tiers.require("torch")

from watched_rank import true_peak_bytes  # noqa: E402

from hpctrain.train.communicator import Communicator  # noqa: E402

WIDE = ("model.d_model=512", "model.num_heads=8")
CASES = [
    Case("one sequence", batch=1),
    Case("many sequences", batch=64),
    Case("accumulated", batch=16, accum=4),
    Case("uneven accumulation", batch=7, accum=3),
    Case("bf16", batch=16, precision="bf16"),
    Case("recomputed", batch=64, recomputes=True),
    Case("recomputed bf16", batch=64, recomputes=True, precision="bf16"),
    Case("wide", batch=8, settings=(*WIDE, "model.num_layers=2")),
    Case("wide bf16", batch=8, precision="bf16", settings=(*WIDE, "model.num_layers=2")),
    Case("deep bf16", batch=1, precision="bf16", settings=(*WIDE, "model.num_layers=8")),
    Case("deep recomputed bf16", batch=1, precision="bf16", recomputes=True,
         settings=(*WIDE, "model.num_layers=8")),
    Case("long", batch=4, settings=("model.seq_len=1024", "model.num_layers=2")),
    Case("large vocabulary", batch=2, vocab=50304),
    Case("large vocabulary bf16", batch=4, vocab=50304, precision="bf16"),
    Case("large vocabulary, few tokens", batch=1, vocab=50304, settings=("model.seq_len=16",)),
    Case("rope", batch=8, settings=("model.d_model=256", "model.position=rope")),
    Case("rope bf16", batch=8, precision="bf16", settings=("model.position=rope",)),
    Case("sinusoidal", batch=8, settings=("model.position=sinusoidal",)),
    Case("sharded", batch=1, ranks=4, sharded=True, settings=WIDE),
    Case("sharded bf16", batch=8, ranks=2, sharded=True, precision="bf16"),
    Case("sharded and compressed", batch=1, ranks=2, sharded=True, compression="fp16",
         settings=WIDE),
    Case("compressed", batch=1, ranks=2, compression="fp16", settings=WIDE),
]  # fmt: skip


class Stood(Communicator):
    """One rank of several whose exchanges make the tensors that the real ones make."""

    def __init__(self, size):
        self.size = self.local_size = size

    def reduce_scatter_sum_async(self, tensor, name):
        return tensor[: tensor.numel() // self.size].clone()

    def all_gather_async(self, tensor, name):
        return tensor.repeat(self.size)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_peak_is_within_a_twentieth(case):
    comm = Stood(case.ranks) if case.ranks > 1 else Communicator()
    assert case.estimate().peak_bytes == pytest.approx(
        true_peak_bytes(case.config(), comm), rel=0.05
    )


def test_the_cases_have_every_kind_of_fullest_moment():
    # But the output layer's gradient, which nearly always has another moment above it.
    assert {case.estimate().moment for case in CASES} >= {
        "end of the forward pass",
        "start of the backward pass",
        "last block's backward pass",
        "embedding's gradient",
        "optimizer step",
    }


@pytest.mark.needs("mpirun", "horovod")
@pytest.mark.parametrize(
    "case",
    [
        Case("sums", batch=4, ranks=2),
        Case("compressed", batch=1, ranks=2, compression="fp16", settings=WIDE),
    ],
    ids=lambda case: case.name,
)
def test_real_ranks_over_horovod_take_as_much(case, tmp_path):
    # Not sharded ones: Horovod gathers into memory that a thread of its own takes, where the
    # profiler does not look; and gloo makes copies besides that neither Horovod nor NCCL makes.
    rank = Path(launching.__file__).with_name("watched_rank.py")
    program = [sys.executable, str(rank), json.dumps(dataclasses.asdict(case))]
    done = launching.run(tmp_path, "--np", "2", "--oversubscribe", "--", *program)
    assert done.returncode == 0, done.stderr
    for number in range(2):
        line = next(x for x in done.log(number).decode().splitlines() if x.startswith("peak "))
        assert case.estimate().peak_bytes == pytest.approx(int(line.split()[1]), rel=0.10)
