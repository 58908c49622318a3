"""The plausibility gate, second half: sizes against each other.

Trials one by one are looked at in :mod:`hpctrain.bench.report.gate`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from hpctrain.bench.report.gate import say_again
from hpctrain.bench.report.measured import TOKENS, Measured
from hpctrain.bench.report.spread import FEW_REPEATS, measure_spread
from hpctrain.bench.report.words import say_number
from hpctrain.errors import BenchError, raise_all
from hpctrain.gpu_peaks import TERA, find_peak

OVER_LINEAR = 1.02
"""Weak scaling over n by less than this may be rounding and drift."""
BEYOND_QUARTILES = 2.0
"""So many quartile ranges over n are no chance (how seldom they are: docs/bench.md)."""
SAME_WORK = 0.05
"""A COMMAND's tokens a step are worked out from its tokens/s, which it may have rounded; and
sequences differ in length."""
ACHIEVABLE_TFLOPS = {"A100": 271.0, "H100 SXM": 794.5, "H200": 794.5, "B200": 1745.0}
"""Highest dense 16-bit matrix rate that was measured (S. Bekman, "Machine Learning Engineering",
accelerators, Maximum Achievable Matmul FLOPS), by the names of `gpu_peaks`."""
SIXTEEN_BIT = ("fp16", "bf16", "apex-O1", "apex-O2")


def check_weak_speedups(folder: Path, pairs: Sequence[tuple[Measured, Measured]]) -> None:
    """Refuse weak-scaling speed-ups over n that the spread does not explain.

    Either even the slowest repeat is faster, a rank, than the fastest of the baseline; or the
    quartiles lie apart, and the medians by over BEYOND_QUARTILES times the quartile ranges (root
    of their squares): so one slow repeat among fast ones hides nothing. Fewer than FEW_REPEATS
    have no spread: then the middle half of their steps stands for it.

    Args:
        folder: only to name runs by.
        pairs: each measurement and its baseline.

    Raises:
        BenchError: all of them at once.
    """
    problems = []
    for measured, baseline in pairs:
        if measured.case.mode == "weak" and _is_over_linear(measured, baseline):
            runs = ", ".join(str(folder / repeat.run) for repeat in measured.repeats)
            problems.append(
                f"{measured.case.key} against {baseline.case.key} ({runs}): weak scaling over n, "
                f"got {_say_rates(measured)} {measured.unit} a rank where the baseline has "
                f"{_say_rates(baseline)}; expected no more than the baseline has. Each rank does "
                "the same work in both, so the two were not measured alike: look for another load "
                "during the baseline (load_before in samples.jsonl), other threads or another "
                f"clock. {say_again(measured.case.key, baseline.case.key)}"
            )
    raise_all(BenchError, problems)


def _is_over_linear(measured: Measured, baseline: Measured) -> bool:
    least = _rate_range(measured)[0] / measured.case.np
    most = _rate_range(baseline)[1] / baseline.case.np
    if least > most * OVER_LINEAR:
        return True
    if min(len(m.repeats) for m in (measured, baseline)) < FEW_REPEATS:
        return False
    low, high = measured.rate.q1 / measured.case.np, baseline.rate.q3 / baseline.case.np
    spread = math.hypot(measured.rate.relative_range, baseline.rate.relative_range)
    over = rate_a_rank(measured, baseline) - 1
    return low > high * OVER_LINEAR and over > BEYOND_QUARTILES * spread


def _say_rates(measured: Measured) -> str:
    """Return the rates a rank: the median, and between which all of them lie."""
    np, rate = measured.case.np, measured.rate
    least, most = min(rate.values) / np, max(rate.values) / np
    return f"{rate.median / np:,.4g} ({least:,.4g} to {most:,.4g})"


def rate_a_rank(measured: Measured, baseline: Measured) -> float:
    """Return the median rate a rank over the baseline's."""
    return (measured.rate.median / measured.case.np) / (baseline.rate.median / baseline.case.np)


def check_work(measured: Sequence[Measured]) -> None:
    """Refuse sizes whose steps do not hold the work that their mode promises.

    In weak scaling it is each rank's that stays, in strong scaling that of all ranks together.

    Raises:
        BenchError: all of them at once.
    """
    problems = []
    for mode, whose in (("weak", "a rank"), ("strong", "of all ranks")):
        alike = [m for m in measured if m.case.mode == mode and m.unit == TOKENS]
        first = min(alike, key=lambda m: (m.case.np, m.case.nodes), default=None)
        for m in alike:
            got, expected = _work(m), _work(first)
            if abs(got / expected - 1) > SAME_WORK:
                problems.append(
                    f"{m.case.key}: another work than {first.case.key} has, got "
                    f"{say_number(got)} tokens in a step {whose}; expected "
                    f"{say_number(expected)}, for that is {mode} scaling. "
                    "Rates of unlike work are no efficiency: look at how the program shares out "
                    "its batch, and counts tokens (over all ranks)."
                )
    raise_all(BenchError, problems)


def _work(measured: Measured) -> float:
    per_step = measured.work_per_step
    return per_step / measured.case.np if measured.case.mode == "weak" else per_step


def _rate_range(measured: Measured) -> tuple[float, float]:
    """Return the lowest and the highest rate that were measured."""
    values = list(measured.rate.values)
    if len(values) < FEW_REPEATS:
        for repeat in measured.repeats:
            raw = repeat.metric or [
                repeat.rate * repeat.step_s / step for step in repeat.step_time_s
            ]
            steps = measure_spread(raw)
            values += [steps.q1, steps.q3]
    return min(values), max(values)


def explain_superlinear(measured: Measured, baseline: Measured) -> str | None:
    """Return what is to be said of an efficiency over 1; None where it is not."""
    ratio = rate_a_rank(measured, baseline)
    if measured is baseline or ratio <= 1:
        return None
    if measured.case.mode == "weak":
        return (
            f"{100 * (ratio - 1):.1f} % more a rank than the baseline: each rank does the same "
            "work in both, so this is chance or drift, within the spread of the repeats; read it "
            "as no loss seen"
        )
    return (
        f"more than {measured.case.np / baseline.case.np:g} times the baseline: in strong scaling "
        "each rank's share of the batch shrinks, and may fit into caches (or memory) that the "
        "whole did not"
    )


def warn_above_achievable(measured: Measured) -> str | None:
    """Return a warning where the MFU is possible, but above the best matrix rate ever measured."""
    sample = measured.samples[0]
    if measured.mfu is None or sample.device_name is None or sample.peak_flops is None:
        return None
    peak = find_peak(sample.device_name)
    achievable = ACHIEVABLE_TFLOPS.get(peak.name) if peak else None
    if achievable is None or sample.precision not in SIXTEEN_BIT:
        return None
    limit = achievable * TERA / sample.peak_flops
    if measured.mfu <= limit:
        return None
    return (
        f"{measured.case.key}: MFU {100 * measured.mfu:.1f} % is above the {100 * limit:.1f} % "
        f"that matrix products alone reach on the {peak.name} ({achievable:g} of "
        f"{sample.peak_flops / TERA:g} TFLOP/s): check how tokens and FLOPs are counted"
    )
