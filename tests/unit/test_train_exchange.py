"""Buckets: their layout, and that gradients arrive in them without a copy."""

import pytest
import tiers

tiers.require("torch")

import torch  # noqa: E402

from hpctrain.config.schema import CommConfig, OptimConfig  # noqa: E402
from hpctrain.errors import ConfigError  # noqa: E402
from hpctrain.train.buckets import ALIGNMENT, plan_buckets  # noqa: E402
from hpctrain.train.communicator import Communicator  # noqa: E402
from hpctrain.train.exchange import BucketExchange, resolve_exchange  # noqa: E402
from hpctrain.train.model import build_model, sum_token_losses  # noqa: E402
from hpctrain.train.presets import ModelSize  # noqa: E402

SIZE = ModelSize(
    d_model=16, num_layers=2, num_heads=2, vocab_size=32, seq_len=8, position="learned"
)


class TwinCommunicator(Communicator):
    """Acts as two ranks with equal gradients, and notes when each bucket was sent."""

    size = 2

    def __init__(self):
        self.sent = []

    def all_reduce_sum_async(self, tensor, name):
        self.sent.append(name)
        return tensor

    def wait(self, handle):
        handle.mul_(2)


def tokens(seed: int):
    rows = torch.randint(32, (4, 9), generator=torch.Generator().manual_seed(seed))
    return rows[:, :-1], rows[:, 1:]


def test_buckets_hold_every_parameter_once_in_reverse_order():
    numels, decays = [100, 10, 200, 10, 300], [True, False, True, False, True]
    layouts = plan_buckets(numels, decays, bucket_elements=320)
    groups = [sorted(slot.parameter for slot in layout.slots) for layout in layouts]
    assert groups == [[3, 4], [0, 1, 2]]
    for layout in layouts:
        assert layout.numel % ALIGNMENT == 0
        ends = [slot.offset + numels[slot.parameter] for slot in layout.slots]
        starts = [slot.offset for slot in layout.slots[1:]]
        assert all(end <= start for end, start in zip(ends, starts, strict=False))
        assert all(
            decays[slot.parameter] == (slot.offset < layout.decayed) for slot in layout.slots
        )


def test_a_parameter_larger_than_a_bucket_has_its_own():
    layouts = plan_buckets([5, 1000, 5], [True] * 3, bucket_elements=10)
    assert [[slot.parameter for slot in layout.slots] for layout in layouts] == [[2], [1], [0]]


def test_parameters_keep_their_values_and_gradients_are_views():
    model, reference = build_model(SIZE, seed=1), build_model(SIZE, seed=1)
    exchange = BucketExchange(model, Communicator(), bucket_mb=0.005)
    flats = [(b.parameters, b.gradients) for b in exchange.buckets]
    sum_token_losses(model(tokens(0)[0]), tokens(0)[1]).backward()
    sum_token_losses(reference(tokens(0)[0]), tokens(0)[1]).backward()

    def lies_in(view, flats):
        return any(
            f.data_ptr() <= view.data_ptr() < f.data_ptr() + f.numel() * f.element_size()
            for f in flats
        )

    for mine, other in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(mine, other)
        torch.testing.assert_close(mine.grad, other.grad)
        assert lies_in(mine, [parameters for parameters, _ in flats])
        assert lies_in(mine.grad, [gradients for _, gradients in flats])


def test_only_the_last_micro_step_sends_and_each_bucket_goes_once():
    comm = TwinCommunicator()
    model = build_model(SIZE, seed=1)
    exchange = BucketExchange(model, comm, bucket_mb=0.005)
    exchange.clear()
    for number in range(3):
        with exchange.micro_step(last=number == 2):
            loss = sum_token_losses(model(tokens(number)[0]), tokens(number)[1])
            exchange.loss += loss.detach()
            assert comm.sent == []
            own = exchange.loss.item()
            loss.backward()
    assert comm.sent == [f"gradients.{n}" for n in range(len(exchange.buckets))]
    before = [bucket.gradients.clone() for bucket in exchange.buckets]
    exchange.finish()
    assert exchange.loss.item() == pytest.approx(2 * own)
    for bucket, half in zip(exchange.buckets, before, strict=True):
        torch.testing.assert_close(bucket.gradients, 2 * half)


def test_a_parameter_without_a_gradient_does_not_hold_up_its_bucket():
    class Unused(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.used(x)

    comm = TwinCommunicator()
    model = Unused()
    exchange = BucketExchange(model, comm, bucket_mb=25.0)
    with exchange.micro_step(last=True):
        model(torch.ones(1, 3)).sum().backward()
    assert comm.sent == []
    exchange.finish()
    assert comm.sent == ["gradients.0"]


class OneOfThree(Communicator):
    """The last of three ranks, all of which have equal gradients and parameters."""

    rank, size = 2, 3

    def reduce_scatter_sum_async(self, tensor, name):
        return 3 * tensor.view(3, -1)[self.rank]

    def all_gather_async(self, tensor, name):
        return tensor.repeat(3)


def test_a_shard_is_the_same_part_of_every_bucket():
    model = build_model(SIZE, seed=1)
    exchange = BucketExchange(model, OneOfThree(), bucket_mb=0.005, sharded=True)
    exchange.clear()
    with exchange.micro_step(last=True):
        sum_token_losses(model(tokens(0)[0]), tokens(0)[1]).backward()
    own = [bucket.gradients.view(3, -1)[2].clone() for bucket in exchange.buckets]
    exchange.finish()
    for bucket, before in zip(exchange.buckets, own, strict=True):
        torch.testing.assert_close(bucket.gradients.view(3, -1)[2], 3 * before)
    names = dict(model.named_parameters())
    for piece in exchange.pieces:
        for run in piece.runs:
            mine = piece.tensor[run.start : run.start + run.numel]
            whole = names[run.name].flatten()[run.first : run.first + run.numel]
            assert torch.equal(mine, whole)
            assert piece.decays == (names[run.name].dim() >= 2)


def test_only_our_buckets_can_be_sharded():
    sharded = OptimConfig(sharded=True)
    with pytest.raises(ConfigError, match=r"optim\.sharded: needs our own buckets"):
        resolve_exchange(CommConfig(exchange="native"), sharded)
    assert resolve_exchange(CommConfig(backend="ddp"), sharded) == "buckets"
    assert resolve_exchange(CommConfig(backend="ddp"), OptimConfig()) == "native"
    assert resolve_exchange(CommConfig(), OptimConfig()) == "buckets"
