"""Several prepared folders as one endless order of samples, mixed by weight.

Which source position p of the order draws from, and the how-manieth draw of it that is, follow
from p and the weights alone: no random numbers, no table that grows with the data. Each source
then has its own shuffled order (:func:`sample_at`), so none of its samples comes twice in one of
its epochs. One folder is the mixture of one source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np

from hpctrain.errors import ConfigError

MAX_PERIOD = 100_000
_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15


class SampleReader(Protocol):
    """A source of equally long samples, such as `hpctrain.train.shards.Windows`."""

    seq_len: int

    def __len__(self) -> int: ...

    def read(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) int64 → (samples, seq_len + 1) int64"""
        ...


class Mixture:
    """Samples of several sources, numbered through: those of the first, of the second, …"""

    def __init__(self, sources: Sequence[SampleReader], weights: Sequence[int] = (1,)) -> None:
        """Mix `sources` by whole `weights`; see :func:`whole_weights`."""
        self.seq_len = sources[0].seq_len
        self._sources, self._weights = sources, np.array(weights, dtype=np.int64)
        self._counts = [len(source) for source in sources]
        self._firsts = np.cumsum([0, *self._counts], dtype=np.int64)
        self._pattern = np.array(plan_pattern(weights), dtype=np.int64)
        # Which draw of its own source, counted from 0, each place of the pattern is.
        self._draws = np.empty_like(self._pattern)
        for source, weight in enumerate(weights):
            self._draws[self._pattern == source] = np.arange(weight)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def samples_at(self, positions: np.ndarray, seed: int) -> np.ndarray:
        """Return the samples at `positions` of the endless order: (n,) int64 → (n,) int64."""
        return self._pick(
            positions, lambda source, draws: sample_at(draws, self._counts[source], seed + source)
        )

    def limit(self, wanted: int) -> int:
        """Return how many samples :meth:`spread` can give without one twice, at most `wanted`."""
        fitting, too_many = 0, min(wanted, len(self)) + 1
        while too_many - fitting > 1:
            middle = (fitting + too_many) // 2
            drawn = self._count_draws(middle)
            if all(n <= count for n, count in zip(drawn, self._counts, strict=True)):
                fitting = middle
            else:
                too_many = middle
        return fitting

    def spread(self, places: np.ndarray, total: int) -> np.ndarray:
        """Return samples `places` of `total` that stand evenly in each source, by weight.

        Args:
            places: (n,) int64, 0 … total - 1.
            total: at most what :meth:`limit` allows.
        """
        drawn = self._count_draws(total)
        return self._pick(
            places,
            lambda source, draws: draws * self._counts[source] // max(int(drawn[source]), 1),
        )

    def read(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) int64 → (samples, seq_len + 1) int64"""
        if len(self._sources) == 1:
            return self._sources[0].read(samples)
        owners = np.searchsorted(self._firsts, samples, side="right") - 1
        rows = None
        for source in np.unique(owners).tolist():
            here = owners == source
            part = self._sources[source].read(samples[here] - self._firsts[source])
            if rows is None:
                rows = np.empty((len(samples), part.shape[1]), dtype=part.dtype)
            rows[here] = part
        assert rows is not None
        return rows

    def _pick(self, positions, of_source) -> np.ndarray:
        cycles, places = np.divmod(positions, len(self._pattern))
        owners = self._pattern[places]
        draws = cycles * self._weights[owners] + self._draws[places]
        samples = np.empty_like(draws)
        for source in range(len(self._sources)):
            here = owners == source
            if here.any():
                samples[here] = self._firsts[source] + of_source(source, draws[here])
        return samples

    def _count_draws(self, total: int) -> np.ndarray:
        cycles, rest = divmod(total, len(self._pattern))
        counts = np.bincount(self._pattern[:rest], minlength=len(self._weights))
        return cycles * self._weights + counts


def whole_weights(weights: Mapping[str, float]) -> tuple[int, ...]:
    """Return the smallest whole numbers in the same proportion.

    >>> whole_weights({"web": 0.65, "code": 0.34, "books": 0.01})
    (65, 34, 1)

    Raises:
        ConfigError: they add up to more than 100,000.
    """
    exact = [Fraction(str(weight)) for weight in weights.values()]
    scale = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    whole = [weight // math.gcd(*whole) for weight in whole]
    if sum(whole) > MAX_PERIOD:
        raise ConfigError(
            "data.mixture: weights too fine to hold exactly, got "
            f"{', '.join(f'{weight:g}' for weight in weights.values())}: in whole numbers they "
            f"add up to {sum(whole)}; expected at most {MAX_PERIOD}. Round them, e.g. to 65, 34, 1."
        )
    return tuple(whole)


def plan_pattern(weights: Sequence[int]) -> list[int]:
    """Return which source each draw of one period takes; the period is the sum of `weights`.

    After any number of draws each source has had its part to less than one draw, and after each
    period exactly (Tijdeman 1980, "The chairman assignment problem": of the sources whose part
    would allow one more, take the one that is due first).

    >>> plan_pattern([3, 2, 1])
    [0, 1, 0, 2, 1, 0]
    """
    period, sources = sum(weights), len(weights)
    if sources == 1:
        return [0] * period
    # All times 2·sources - 2 and times the period, so that every number is whole.
    unit = 2 * sources - 2
    drawn = [0] * sources
    pattern = []
    for draw in range(1, period + 1):
        due = []
        for source, weight in enumerate(weights):
            behind = unit * (weight * draw - drawn[source] * period)
            if behind >= period:
                due.append((Fraction(unit * period - period - behind, weight), source))
        _, source = min(due)
        drawn[source] += 1
        pattern.append(source)
    return pattern


def sample_at(positions: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the samples at `positions` of the endless shuffled order: (n,) int64 → (n,) int64.

    Each epoch, positions [e·count, (e+1)·count), is its own permutation of the samples
    0 … count-1, computed where it is needed: no table, so no memory, at any data size. It is a
    Feistel network over the next power of four with cycle walking (Black and Rogaway 2002,
    "Ciphers with Arbitrary Finite Domains", method 2), its rounds mixed by splitmix64
    (Steele, Lea and Flood 2014).
    """
    epoch, place = np.divmod(positions.astype(np.uint64), np.uint64(count))
    key = _mix(_mix(np.full_like(place, seed)) + epoch)
    half_bits = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    rounds = [_mix(key + np.uint64(number)) for number in range(1, _ROUNDS + 1)]
    walking = np.arange(len(place))
    while len(walking):
        left, right = place[walking] >> half_bits, place[walking] & mask
        for round_key in rounds:
            left, right = right, left ^ (_mix(right + round_key[walking]) & mask)
        place[walking] = (left << half_bits) | right
        walking = walking[place[walking] >= count]
    return place.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    """splitmix64's output function, (n,) uint64 → (n,) uint64, wrapping round at 2^64."""
    x = x + np.uint64(_GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
