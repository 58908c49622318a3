"""Sample order and shares: the number of ranks must not show."""

import numpy as np
import pytest
import tiers

tiers.require("torch")

import torch  # noqa: E402

from hpctrain.config.schema import TrainConfig  # noqa: E402
from hpctrain.errors import ConfigError  # noqa: E402
from hpctrain.train import data  # noqa: E402
from hpctrain.train.choices import resolve_global_batch_size  # noqa: E402
from hpctrain.train.data import TrainingBatches, ValidationBatches, share  # noqa: E402
from hpctrain.train.mixture import Mixture, plan_pattern, sample_at, whole_weights  # noqa: E402

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
    windows = Mixture([CountingWindows(23)])
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
            Mixture([CountingWindows(100)]),
            sequences=5,
            batch_size=2,
            rank=rank,
            size=size,
            device=CPU,
        )
        seen += [row for inputs, _ in validation for row in inputs[:, 0].tolist()]
    assert seen == [0, 20, 40, 60, 80]


def test_validation_takes_what_there_is():
    few = ValidationBatches(
        Mixture([CountingWindows(3)]), sequences=64, batch_size=2, rank=0, size=1, device=CPU
    )
    none = ValidationBatches(
        Mixture([CountingWindows(0)]), sequences=64, batch_size=2, rank=0, size=1, device=CPU
    )
    assert (few.sequences, none.sequences, list(none)) == (3, 0, [])


@pytest.mark.parametrize("chunk_tokens", [1, 100, 1000])
def test_steps_may_be_read_in_any_order(monkeypatch, chunk_tokens):
    monkeypatch.setattr(data, "CHUNK_TOKENS", chunk_tokens)
    windows = Mixture([CountingWindows(10_000)])
    made = {"global_batch": 5, "seed": 3, "rank": 0, "size": 1, "device": CPU}
    in_order, anyhow = TrainingBatches(windows, **made), TrainingBatches(windows, **made)
    expected = {step: in_order.read(step, 1) for step in range(900)}
    order = sample_at(np.arange(900 * 5), 10_000, 3).reshape(900, 5)
    for step in (7, 8, 9, 899, 0, 818, 819, 820, 799, 800, 7):  # blocks of the order meet there
        ((inputs, targets),) = anyhow.read(step, 1)
        assert inputs[:, 0].tolist() == order[step].tolist()
        assert torch.equal(inputs, expected[step][0][0])
        assert torch.equal(targets, expected[step][0][1])


def test_what_goes_wrong_while_reading_ahead_is_raised_where_it_is_read():
    class Broken(CountingWindows):
        def read(self, samples):
            raise OSError("disk on fire")

    batches = TrainingBatches(
        Mixture([Broken(9)]), global_batch=1, seed=0, rank=0, size=1, device=CPU
    )
    with pytest.raises(OSError, match="disk on fire"):
        batches.read(0, 1)


WEIGHTS = [(65, 34, 1), (1, 1), (1, 2, 3, 4), (997, 2, 1), (1,), (7, 7, 7, 7, 1), (50, 49)]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_each_source_has_its_part_at_any_time_to_less_than_one_sample(weights):
    period = sum(weights)
    pattern = np.array(plan_pattern(weights))
    for source, weight in enumerate(weights):
        drawn = np.concatenate([[0], np.cumsum(pattern == source)])
        behind = np.arange(period + 1) * weight / period - drawn
        assert np.abs(behind).max() < 1
        assert drawn[-1] == weight


@pytest.mark.parametrize("weights", WEIGHTS)
def test_any_window_of_the_order_has_the_proportions(weights):
    counts = [1000 + 10 * source for source in range(len(weights))]
    mixture = Mixture([CountingWindows(count) for count in counts], weights)
    owners = np.searchsorted(np.cumsum(counts), mixture.samples_at(np.arange(12_345), 5), "right")
    for start, length in ((0, 12_345), (17, 1000), (4321, 6789), (999, 1)):
        window = owners[start : start + length]
        for source, weight in enumerate(weights):
            part = length * weight / sum(weights)
            assert abs((window == source).sum() - part) < (1 if start == 0 else 2)


def test_no_sample_repeats_within_an_epoch_of_its_source():
    counts, weights = (650, 120, 7), (65, 34, 1)
    mixture = Mixture([CountingWindows(count) for count in counts], weights)
    samples = mixture.samples_at(np.arange(5000), seed=1)
    assert ((samples >= 0) & (samples < len(mixture))).all()
    first = 0
    for count in counts:
        own = samples[(samples >= first) & (samples < first + count)] - first
        for start in range(0, len(own), count):
            epoch = own[start : start + count]
            assert len(set(epoch.tolist())) == len(epoch)
        assert set(own[:count].tolist()) == set(range(min(count, len(own))))
        first += count


def test_a_mixture_of_one_is_the_plain_order():
    positions = np.arange(500)
    assert np.array_equal(
        Mixture([CountingWindows(77)]).samples_at(positions, 9), sample_at(positions, 77, 9)
    )


def test_mixed_samples_are_read_from_their_sources():
    class Tagged(CountingWindows):
        def read(self, samples):
            return super().read(samples) + 1000 * self.count

    mixture = Mixture([Tagged(5), Tagged(3)], (1, 1))
    rows = mixture.read(np.array([7, 0, 4, 5]))
    assert rows[:, 0].tolist() == [3002, 5000, 5004, 3000]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_ranks_together_read_the_same_mixture_at_any_size(size):
    mixture = Mixture([CountingWindows(50), CountingWindows(9)], (3, 1))
    for step in range(5):
        seen = []
        for rank in range(size):
            batches = TrainingBatches(
                mixture, global_batch=7, seed=1, rank=rank, size=size, device=CPU
            )
            seen += [row for inputs, _ in batches.read(step, 1) for row in inputs[:, 0].tolist()]
        samples = mixture.samples_at(step * 7 + np.arange(7), 1)
        assert seen == mixture.read(samples)[:, 0].tolist()


def test_validation_of_a_mixture_is_spread_over_each_source_by_weight():
    counts = (1000, 100, 3)
    mixture = Mixture([CountingWindows(count) for count in counts], (65, 34, 1))
    assert mixture.limit(100) == 100
    samples = mixture.spread(np.arange(100), 100)
    own = [samples[samples < 1000], samples[(samples >= 1000) & (samples < 1100)] - 1000]
    assert [len(part) for part in own] == [65, 34]
    assert np.array_equal(np.sort(own[0]), np.arange(65) * 1000 // 65)
    # The second source ends first: 34 of every 100 fit about 294 times into 100.
    limit = mixture.limit(10_000)
    assert 290 <= limit <= 297
    assert len(set(mixture.spread(np.arange(limit), limit).tolist())) == limit
    assert Mixture([CountingWindows(5), CountingWindows(0)], (1, 1)).limit(64) <= 2


def test_weights_become_small_whole_numbers():
    assert whole_weights({"a": 65, "b": 34, "c": 1}) == (65, 34, 1)
    assert whole_weights({"a": 0.5, "b": 0.25, "c": 0.25}) == (2, 1, 1)
    assert whole_weights({"a": 30.0, "b": 60}) == (1, 2)
    with pytest.raises(ConfigError, match="weights too fine to hold exactly"):
        whole_weights({"a": 1, "b": 1e-9})


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
