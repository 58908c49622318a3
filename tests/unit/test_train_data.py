"""Sample order and shares: the number of ranks must not show."""

import numpy as np
import pytest
import tiers

tiers.require("torch")

import torch  # noqa: E402

from hpctrain.config.schema import TrainConfig  # noqa: E402
from hpctrain.errors import ConfigError  # noqa: E402
from hpctrain.train.data import (  # noqa: E402
    TrainingBatches,
    ValidationBatches,
    resolve_global_batch_size,
    sample_at,
    share,
)

CPU = torch.device("cpu")


class CountingWindows:
    """Window i is i, i+1, …: shows which samples were read."""

    def __init__(self, count, seq_len=4):
        self.count, self.seq_len = count, seq_len

    def __len__(self):
        return self.count

    def read(self, samples):
        return samples[:, None] + np.arange(self.seq_len + 1)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 1000, 4097])
def test_each_epoch_is_another_permutation(count):
    positions = np.arange(3 * count)
    samples = sample_at(positions, count, seed=7)
    epochs = samples.reshape(3, count)
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(count))
    if count >= 16:
        assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3


def test_order_is_shuffled_and_depends_on_the_seed():
    positions = np.arange(1000)
    one, other = sample_at(positions, 1000, 1), sample_at(positions, 1000, 2)
    assert (one != other).mean() > 0.9
    # A random permutation has about one fixed point and one neighbour that stays neighbour.
    assert (one == positions).sum() < 10
    assert (np.diff(one) == 1).sum() < 10
    assert abs(np.corrcoef(positions, one)[0, 1]) < 0.1


def test_order_is_frozen():
    # A resumed run, perhaps under a newer version, must go on with the same samples.
    assert sample_at(np.arange(8), 10, seed=1234).tolist() == [8, 6, 7, 5, 0, 3, 2, 1]


def test_positions_may_be_huge():
    count = 3_000_000_000
    samples = sample_at(np.array([0, count - 1, 5 * count + 17]), count, seed=0)
    assert ((samples >= 0) & (samples < count)).all()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("grad_accum_steps", [1, 2, 5])
def test_ranks_together_read_the_same_sequences_at_any_size(size, grad_accum_steps):
    windows = CountingWindows(23)
    for step in range(6):  # crosses the end of an epoch
        seen = []
        for rank in range(size):
            batches = TrainingBatches(
                windows, global_batch=7, seed=1, rank=rank, size=size, device=CPU
            )
            parts = batches.read(step, grad_accum_steps)
            assert 1 <= len(parts) <= grad_accum_steps
            for inputs, targets in parts:
                assert torch.equal(inputs + 1, targets)
                seen += inputs[:, 0].tolist()
        expected = sample_at(step * 7 + np.arange(7), 23, seed=1)
        assert seen == expected.tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_validation_reads_the_same_windows_at_any_size(size):
    seen = []
    for rank in range(size):
        validation = ValidationBatches(
            CountingWindows(100), sequences=5, batch_size=2, rank=rank, size=size, device=CPU
        )
        seen += [row for inputs, _ in validation for row in inputs[:, 0].tolist()]
    assert seen == [0, 20, 40, 60, 80]


def test_validation_takes_what_there_is():
    few = ValidationBatches(
        CountingWindows(3), sequences=64, batch_size=2, rank=0, size=1, device=CPU
    )
    none = ValidationBatches(
        CountingWindows(0), sequences=64, batch_size=2, rank=0, size=1, device=CPU
    )
    assert (few.sequences, none.sequences, list(none)) == (3, 0, [])


@pytest.mark.parametrize(("total", "parts"), [(0, 3), (1, 3), (7, 3), (8, 4), (10, 7)])
def test_shares_cover_everything_and_differ_by_one_at_most(total, parts):
    shares = [share(total, part, parts) for part in range(parts)]
    assert [item for part in shares for item in part] == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_batch_is_given_once():
    assert resolve_global_batch_size(TrainConfig(), 3) == 24
    assert resolve_global_batch_size(TrainConfig(batch_size_per_rank=5), 3) == 15
    assert resolve_global_batch_size(TrainConfig(global_batch_size=5), 3) == 5


def test_more_ranks_than_sequences_is_an_error_that_names_both():
    with pytest.raises(ConfigError, match="got 3 for 4 ranks; expected at least 4"):
        resolve_global_batch_size(TrainConfig(global_batch_size=3), 4)
