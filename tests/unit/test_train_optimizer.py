"""Schedule, clipping, and AdamW over flat tensors."""

import math

import pytest
import tiers

tiers.require("torch")

import torch  # noqa: E402

from hpctrain.config.schema import OptimConfig  # noqa: E402
from hpctrain.train.communicator import Communicator  # noqa: E402
from hpctrain.train.exchange import BucketExchange  # noqa: E402
from hpctrain.train.model import build_model, sum_token_losses  # noqa: E402
from hpctrain.train.optimizer import (  # noqa: E402
    clip_by_global_norm,
    learning_rate,
    make_optimizer,
    resolve_schedule,
)
from hpctrain.train.presets import ModelSize  # noqa: E402

SIZE = ModelSize(
    d_model=16, num_layers=2, num_heads=2, vocab_size=32, seq_len=8, position="learned"
)


def test_warm_up_rises_to_the_peak_and_the_cosine_ends_at_the_floor():
    config = OptimConfig(lr=1.0, min_lr_ratio=0.1, warmup_steps=4)
    rates = [learning_rate(step, 20, config) for step in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)
    middle = learning_rate(4 + 15 // 2, 4 + 16, config)
    assert middle == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 7 / 15)))


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 5), (2, 2), (3, 2)])
def test_short_runs_have_a_rate_in_range(steps, warmup):
    config = OptimConfig(lr=1.0, min_lr_ratio=0.0, warmup_steps=warmup)
    assert all(0 <= learning_rate(step, steps, config) <= 1 for step in range(steps))


@pytest.mark.parametrize(("scaling", "lr"), [("none", 0.5), ("linear", 4.5), ("sqrt", 1.5)])
def test_the_rate_of_one_rank_s_batch_is_scaled_to_all(scaling, lr):
    config = OptimConfig(lr=0.5, lr_scaling=scaling, warmup_steps=7)
    resolved = resolve_schedule(config, size=9, tokens_per_step=100)
    assert (resolved.lr, resolved.warmup_steps) == (pytest.approx(lr), 7)
    assert resolve_schedule(config, size=1, tokens_per_step=100) == config


@pytest.mark.parametrize(("tokens", "steps"), [(1, 1), (100, 1), (101, 2), (1000, 10)])
def test_a_warm_up_in_tokens_takes_whole_steps(tokens, steps):
    config = OptimConfig(warmup_tokens=tokens)
    assert resolve_schedule(config, size=4, tokens_per_step=100).warmup_steps == steps


def test_clipping_scales_all_gradients_by_one_factor():
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]
    assert clip_by_global_norm(gradients, 1.0).item() == pytest.approx(5.0)
    assert torch.cat(gradients).tolist() == pytest.approx([0.6, 0.0, 0.8], rel=1e-5)


@pytest.mark.parametrize("limit", [0.0, 10.0])
def test_gradients_within_the_limit_stay_as_they_are(limit):
    gradients = [torch.tensor([3.0, 4.0])]
    assert clip_by_global_norm(gradients, limit).item() == pytest.approx(5.0)
    assert gradients[0].tolist() == [3.0, 4.0]


def test_flat_adamw_updates_as_adamw_by_parameter_does():
    config = OptimConfig(lr=1e-2, weight_decay=0.5)
    flat_model, plain_model = build_model(SIZE, seed=3), build_model(SIZE, seed=3)
    exchange = BucketExchange(flat_model, Communicator(), bucket_mb=0.005)
    assert len(exchange.buckets) > 2
    flat = make_optimizer(exchange.pieces, config)
    parameters = list(plain_model.parameters())
    plain = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.5},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(config.beta1, config.beta2),
    )
    tokens = torch.randint(32, (4, 9), generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        exchange.clear()
        plain.zero_grad()
        for model in (flat_model, plain_model):
            sum_token_losses(model(tokens[:, :-1]), tokens[:, 1:]).backward()
        exchange.finish()
        flat.step()
        plain.step()
    for mine, reference in zip(flat_model.parameters(), parameters, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)
