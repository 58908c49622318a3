"""Which message sizes to measure, with which backends: what a person typed → values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from hpctrain.errors import ConfigError, did_you_mean, raise_all

ELEMENT_BYTES = 4  # fp32
DEFAULT_SIZES = tuple(4**exponent for exponent in range(1, 15))  # 4 B to 256 MiB
DEFAULT_BACKENDS = ("horovod", "mpi4py", "torch")
BACKENDS = (*DEFAULT_BACKENDS, "buckets")
DEFAULT_REPEATS = 100
DEFAULT_BUDGET_S = 60.0
LEAST_REPEATS = 3
START_S = 10.0  # importing torch, joining ranks, touching memory for the first time
MAX_BYTES = 1 << 40  # a slip in the unit; memory ends long before
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class AllreducePlan:
    """What is to be measured.

    Args:
        sizes: message sizes (bytes), ascending.
        repeats: at most so many timings a size and backend.
        budget_s: about so long in all; large sizes get fewer repeats.
    """

    sizes: tuple[int, ...] = DEFAULT_SIZES
    backends: tuple[str, ...] = DEFAULT_BACKENDS
    repeats: int = DEFAULT_REPEATS
    budget_s: float = DEFAULT_BUDGET_S

    @property
    def points(self) -> int:
        return len(self.sizes) * len(self.backends)

    @property
    def longest_s(self) -> float:
        """About how long the command takes at most."""
        return START_S + self.budget_s


def plan_allreduce(
    sizes: Sequence[int], backends: Sequence[str], repeats: int, budget_s: float
) -> AllreducePlan:
    """Return the plan; sizes sorted, each once.

    Raises:
        ConfigError: with all that is wrong.
    """
    errors = []
    if not sizes:
        errors.append("--sizes: nothing to measure, got none; expected some, e.g. 4,1k,1M.")
    for size in sizes:
        if size % ELEMENT_BYTES or not 0 < size <= MAX_BYTES:
            errors.append(
                f"--sizes: not a message of fp32 numbers, got {size} bytes; expected a multiple "
                f"of {ELEMENT_BYTES} from {ELEMENT_BYTES} to {MAX_BYTES}."
            )
    for name in backends:
        if name not in BACKENDS:
            errors.append(
                f"--backends: unknown backend, got '{name}'; expected some of "
                f"{', '.join(BACKENDS)}.{did_you_mean(name, BACKENDS)}"
            )
    if not backends:
        errors.append(f"--backends: got none; expected some of {', '.join(BACKENDS)}.")
    if repeats < LEAST_REPEATS:
        errors.append(
            f"--repeats: too few to see a spread, got {repeats}; expected at least {LEAST_REPEATS}."
        )
    if not 1.0 <= budget_s <= 86400.0:
        errors.append(f"--budget: got {budget_s:g} s; expected 1 to 86400.")
    raise_all(ConfigError, errors)
    return AllreducePlan(
        sizes=tuple(sorted(set(sizes))), backends=tuple(dict.fromkeys(backends)),
        repeats=repeats, budget_s=budget_s,
    )  # fmt: skip


def plan_from_words(
    sizes: str | None, backends: str, repeats: int, budget_s: float
) -> AllreducePlan:
    """Return the plan that a command line means.

    Raises:
        ConfigError: with all that is wrong.
    """
    errors: list[str] = []
    found: list[int] = []
    for word in [] if sizes is None else sizes.split(","):
        try:
            found += parse_sizes(word)
        except ConfigError as wrong:
            errors += wrong.messages
    try:
        plan = plan_allreduce(found or DEFAULT_SIZES, parse_backends(backends), repeats, budget_s)
    except ConfigError as wrong:
        errors += wrong.messages
    raise_all(ConfigError, errors)
    return plan


def parse_sizes(text: str) -> tuple[int, ...]:
    """Return message sizes (bytes); k, M and G are powers of 1024, as nccl-tests reads them.

    >>> parse_sizes("4,1k,0.5M,1GiB")
    (4, 1024, 524288, 1073741824)

    Raises:
        ConfigError: with every wrong entry.
    """
    found, errors = [], []
    for item in text.split(","):
        match = _SIZE.fullmatch(item.strip())
        if match is None:
            errors.append(
                f"--sizes: cannot be read, got '{item.strip()}'; expected a number of bytes, "
                "with k, M or G, e.g. 4,1k,256M."
            )
            continue
        value = Fraction(match[1]) * _UNITS[match[2].lower()]
        if value.denominator != 1:
            errors.append(f"--sizes: got '{item.strip()}'; expected a whole number of bytes.")
            continue
        found.append(int(value))
    raise_all(ConfigError, errors)
    return tuple(found)


def parse_backends(text: str) -> tuple[str, ...]:
    """Return the words of a list; :func:`plan_allreduce` judges them.

    >>> parse_backends("horovod, torch")
    ('horovod', 'torch')
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


def render_size(size: int) -> str:
    """Return a size as it can be typed.

    >>> render_size(4), render_size(1024), render_size(1536), render_size(256 << 20)
    ('4', '1k', '1536', '256M')
    """
    for unit, factor in (("G", 1 << 30), ("M", 1 << 20), ("k", 1 << 10)):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
