"""The memory that `hpctrain estimate` tells, against torch.cuda.max_memory_allocated."""

import pytest
import tiers
from estimating import Case

tiers.require("cuda")

import torch  # noqa: E402

from hpctrain.train.communicator import Communicator  # noqa: E402
from hpctrain.train.loop import run_training  # noqa: E402

SMALL = ("model.d_model=768", "model.num_layers=12", "model.num_heads=12", "model.seq_len=1024")
CASES = [
    Case("small", batch=4, vocab=50304, settings=SMALL),
    Case("small bf16", batch=8, vocab=50304, precision="bf16", settings=SMALL),
    Case("small bf16 accumulated", batch=16, accum=4, vocab=50304, precision="bf16",
         settings=SMALL),
    Case("small bf16 recomputed", batch=16, vocab=50304, precision="bf16", recomputes=True,
         settings=SMALL),
    Case("deep bf16", batch=32, precision="bf16", settings=SMALL),
    Case("rope bf16", batch=8, vocab=50304, precision="bf16",
         settings=(*SMALL, "model.position=rope")),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_peak_is_within_a_tenth(case):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run_training(case.config(device="cuda"), Communicator())
    true = torch.cuda.max_memory_allocated() - before
    assert case.estimate().peak_bytes == pytest.approx(true, rel=0.10)
