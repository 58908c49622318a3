"""The model whose layers take a set time."""

import pytest
import tiers

tiers.require("torch")

import numpy as np  # noqa: E402
import torch  # noqa: E402

from hpctrain.bench import worker_timed_model  # noqa: E402
from hpctrain.errors import ConfigError  # noqa: E402
from hpctrain.scaling_model.calibrate import cpu_cycle_s  # noqa: E402
from hpctrain.scaling_model.step import plan_bucket_models  # noqa: E402
from hpctrain.train.buckets import ALIGNMENT, plan_buckets  # noqa: E402
from hpctrain.train.comm_horovod import choose_cycle_ms  # noqa: E402
from hpctrain.train.communicator import Communicator  # noqa: E402
from hpctrain.train.exchange import BucketExchange  # noqa: E402
from hpctrain.train.model import sum_token_losses  # noqa: E402


def test_each_layer_waits_and_has_gradients(monkeypatch):
    waits = []
    monkeypatch.setattr(worker_timed_model.time, "sleep", waits.append)
    monkeypatch.setenv("HPCTRAIN_TIMED_MODEL", "layers=3,layer_kb=8,forward_ms=2,backward_ms=5")
    model = worker_timed_model.build(vocab_size=16, seq_len=4)
    exchange = BucketExchange(model, Communicator(), bucket_mb=0.008)
    tokens = torch.from_numpy(
        worker_timed_model.open_samples("train", 4).read(np.arange(2)).astype(np.int64)
    )
    exchange.clear()
    with exchange.micro_step(last=True):
        scores = model(tokens[:, :-1])
        assert scores.shape == (2, 4, 16)
        assert waits == [0.002] * 3
        sum_token_losses(scores, tokens[:, 1:]).backward()
    assert waits == [0.002] * 3 + [0.005] * 3
    assert len(exchange.buckets) == 3
    assert all(torch.all(bucket.gradients == 1e-3) for bucket in exchange.buckets)


def test_shapes_that_are_none():
    for text in ("layers", "layers=x", "width=3"):
        with pytest.raises(ConfigError, match="HPCTRAIN_TIMED_MODEL: not understood"):
            worker_timed_model.parse_timed_model(text)
    assert worker_timed_model.parse_timed_model("") == worker_timed_model.TimedModelShape()


@pytest.mark.parametrize("bucket", [160, 1600, 10_000, 1_000_000])
def test_modelled_buckets_are_the_trainers(bucket):
    numels = [1600, 64, 320, 4800, 16, 160, 1600]
    laid_out = plan_buckets(numels, [True] * len(numels), bucket)
    modelled = plan_bucket_models([4.0 * numel for numel in numels], 4.0 * bucket)
    assert all(numel % ALIGNMENT == 0 for numel in numels)
    assert [4.0 * layout.numel for layout in laid_out] == [b.bytes_ for b in modelled]


@pytest.mark.parametrize("flops", [1e8, 1e9, 5e9, 33e9, 1e12])
def test_the_modelled_cycle_is_the_trainers(flops):
    assert 1e3 * cpu_cycle_s(flops) == pytest.approx(choose_cycle_ms(flops, threads=1))
