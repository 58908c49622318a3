"""A rate that a program prints, found by a pattern in what its ranks wrote."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from hpctrain.bench.samples import Sample, read_sample
from hpctrain.errors import BenchError, ConfigError


def parse_metric(text: str) -> re.Pattern[str]:
    """Return the pattern of ``--metric``.

    Raises:
        ConfigError: it is no regular expression, or has not exactly one group.
    """
    try:
        pattern = re.compile(text)
    except re.error as wrong:
        raise ConfigError(
            f"--metric: no regular expression, got {text!r}: {wrong}; expected one such as "
            r"'throughput: ([\d.]+)'."
        ) from wrong
    if pattern.groups != 1:
        raise ConfigError(
            f"--metric: got {pattern.groups} groups in {text!r}; expected one, round the number. "
            "Write (?:…) for what is only to be kept together."
        )
    return pattern


def find_metric(pattern: re.Pattern[str], text: str) -> list[float]:
    """Return the numbers that the pattern finds, line by line.

    >>> find_metric(re.compile(r"rate ([\\d.,]+)"), "rate 1,200.5 a\\nrest\\nrate 1300 b")
    [1200.5, 1300.0]

    Raises:
        ValueError: what it found is no number.
    """
    found = (pattern.search(line) for line in text.splitlines())
    return [float(match[1].replace(",", "")) for match in found if match and match[1]]


def read_metric(run_path: Path, pattern: re.Pattern[str], warmup: int) -> tuple[float, ...]:
    """Return a run's rates: those of the first rank whose log has any.

    Args:
        warmup: so many first ones are left out.

    Raises:
        BenchError: no rank printed such a line, none is left, or one is no number above 0.
    """
    values: list[float] = []
    for path in sorted((run_path / "logs").glob("rank-*.log")):
        try:
            values = find_metric(pattern, path.read_text(encoding="utf-8", errors="replace"))
        except ValueError as wrong:
            raise BenchError(
                f"{path}: --metric {pattern.pattern!r} found no number: {wrong}; expected its "
                "group round digits alone."
            ) from wrong
        if values:
            break
    timed = values[warmup:]
    if not timed or not all(math.isfinite(value) and value > 0 for value in timed):
        raise BenchError(
            f"{run_path / 'logs'}: --metric {pattern.pattern!r} found {values}, {warmup} of them "
            "warm-up; expected finite rates above 0 in the output of a rank. Correct what COMMAND "
            "prints, or the pattern (then with another --out)."
        )
    return tuple(timed)


def read_sample_with_metric(run_path: Path, warmup: int) -> Sample:
    """Return the steps that a run reported; a sample without steps where it reported none."""
    try:
        return read_sample(run_path, warmup)
    except BenchError:
        plan = json.loads((run_path / "plan.json").read_text(encoding="utf-8"))
    return Sample(
        np=plan["np"], step_time_s=(), losses=(), tokens_per_step=None, precision=None,
        params=None, flops_per_token=None, peak_flops=None, device_name=None, ranks=(),
    )  # fmt: skip
