"""The same training on fewer ranks."""

import math

import tiers
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.config import parse_config
from hpctrain.config.schema import TrainConfig
from hpctrain.launch.resize import keep_global_batch, keep_learning_rate, plan_next_config


def largest_micro_batch(train, np):
    """As the trainer shares out: ranks' parts, and parts of those, differ by one at most."""
    total = train.global_batch_size or np * (train.batch_size_per_rank or 8)
    share = max((rank + 1) * total // np - rank * total // np for rank in range(np))
    parts = train.grad_accum_steps
    return max((part + 1) * share // parts - part * share // parts for part in range(parts))


@given(
    first_np=st.integers(1, 64), np=st.integers(1, 64), accum=st.integers(1, 8),
    per_rank=st.integers(1, 64), total=st.none() | st.integers(64, 4096),
)  # fmt: skip
def test_a_step_keeps_its_sequences_and_no_micro_batch_grows(first_np, np, accum, per_rank, total):
    batch = {"batch_size_per_rank": per_rank} if total is None else {"global_batch_size": total}
    before = TrainConfig(grad_accum_steps=accum, **batch)
    after = keep_global_batch(before, first_np, np)
    assert after.global_batch_size == (total or first_np * per_rank)
    assert after.batch_size_per_rank is None
    assert after.grad_accum_steps >= accum
    assert largest_micro_batch(after, np) <= largest_micro_batch(before, first_np)
    if after.grad_accum_steps > accum:  # and no more parts than that takes
        fewer = math.ceil(math.ceil(after.global_batch_size / np) / (after.grad_accum_steps - 1))
        assert fewer > largest_micro_batch(before, first_np)


def test_the_default_batch_is_kept_too():
    kept = keep_global_batch(TrainConfig(), first_np=4, np=2)
    assert (kept.global_batch_size, kept.grad_accum_steps) == (32, 2)


def test_the_learning_rate_belongs_to_the_batch():
    tiers.require("torch")
    from hpctrain.train.optimizer import resolve_schedule

    for scaling in ("none", "linear", "sqrt"):
        config = parse_config("", overrides=["optim.lr=0.003", f"optim.lr_scaling={scaling}"]).optim
        before = resolve_schedule(config, 6, 1000)
        after = resolve_schedule(keep_learning_rate(config, 6), 3, 1000)
        assert after.lr == before.lr


def test_on_as_many_ranks_nothing_changes():
    config = parse_config("[train]\nbatch_size_per_rank = 4\n[checkpoint]\nresume = 'none'")
    assert plan_next_config(config, 4, 4, has_saved=False) == config
    assert plan_next_config(config, 4, 2, has_saved=False).checkpoint.resume == "none"


def test_it_goes_on_from_its_own_checkpoints_once_it_has_some():
    config = parse_config("[checkpoint]\nresume = '/elsewhere'")
    assert plan_next_config(config, 4, 4, has_saved=True).checkpoint.resume == "auto"
