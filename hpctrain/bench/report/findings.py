"""What a person should take away, in plain words; every figure is measured or predicted here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpctrain.bench.report.causes import WORTH_POINTS, Ground, explain_part, propose_changes
from hpctrain.bench.report.pairs import Pair
from hpctrain.bench.report.parts import TITLES
from hpctrain.bench.report.result import Size
from hpctrain.bench.report.spread import FEW_REPEATS
from hpctrain.bench.report.words import say_list, say_number, say_percent, say_ranks

FAR_BEYOND = 4.0
"""A loss so many times the quartile range of the efficiency is spoken of however wide that is."""


def find_findings(
    ground: Ground, precisions: Sequence[Pair], placements: Sequence[Pair]
) -> tuple[str, ...]:
    """Return the findings, a paragraph for each line of sizes and one for what is compared."""
    paragraphs = [
        " ".join(_describe(size, ground)) for size in _headlines(tuple(ground.sizes.values()))
    ]
    compared = [*_describe_placements(placements, ground), *_describe_precisions(precisions)]
    compared += _describe_forecasts(ground.sizes.values())
    compared += _describe_inconclusive(ground.sizes.values())
    if compared:
        paragraphs.append(" ".join(compared))
    return tuple(paragraphs)


def _headlines(sizes: Sequence[Size]) -> list[Size]:
    """Return the largest size of each mode and precision, or its baseline where there is no more.

    Of several placements of it, the one on most nodes.
    """
    best: dict[tuple[str, str | None], Size] = {}
    for size in sizes:
        key = (size.mode, size.precision)
        if key not in best or (size.np, size.nodes) > (best[key].np, best[key].nodes):
            best[key] = size
    return list(best.values())


def _describe(size: Size, ground: Ground) -> Iterator[str]:
    base = ground.sizes[size.baseline]
    kind = ", ".join(word for word in (f"{size.mode.capitalize()} scaling", size.precision) if word)
    if size.is_baseline:
        yield (
            f"{kind}: only {say_ranks(size.np, size.nodes)} measured, "
            f"{say_number(size.rate.median)} {size.unit}; nothing to compare it with."
        )
        return
    yield (
        f"{kind}, {say_ranks(size.np, size.nodes)}: {say_percent(size.efficiency, 0)} efficiency "
        f"({_say_spread(size)}), {say_number(size.rate.median)} {size.unit}, against "
        f"{say_number(base.rate.median)} of {say_ranks(base.np, base.nodes)}."
    )
    if size.superlinear:
        yield f"That is {size.superlinear}."
    if size.inconclusive and not _is_far_beyond(size):
        yield f"Nothing can be concluded from that: {size.inconclusive}."
    elif size.lost_points is not None:
        if size.inconclusive:
            yield f"That is rough ({size.inconclusive}), but the loss is far larger."
        yield from _describe_loss(size, ground)


def _say_spread(size: Size) -> str:
    rounds = size.efficiency_rounds
    if len(rounds.values) < FEW_REPEATS:
        return "in 1 repeat" if len(rounds.values) == 1 else f"in {len(rounds.values)} repeats"
    return f"quartiles {say_percent(rounds.q1, 0)} to {say_percent(rounds.q3, 0)}"


def _is_far_beyond(size: Size) -> bool:
    """Return whether the loss is far larger than a wide spread; few repeats have none to pass."""
    rounds, loss = size.efficiency_rounds, 1 - size.efficiency
    return (
        len(rounds.values) >= FEW_REPEATS
        and 100 * loss >= WORTH_POINTS
        and loss >= FAR_BEYOND * (rounds.q3 - rounds.q1)
    )


def _describe_loss(size: Size, ground: Ground) -> Iterator[str]:
    points = size.lost_points
    large = sorted((p for p in points if points[p] >= WORTH_POINTS), key=lambda p: -points[p])
    lost = 100 * (1 - size.efficiency)
    if not large:
        if lost >= WORTH_POINTS:
            yield f"No single part took {WORTH_POINTS:g} of the {lost:.0f} points that are missing."
        return
    said = [f"{points[part]:.0f} {_in_words(part)}" for part in large]
    gains = [part for part in points if points[part] <= -WORTH_POINTS]
    gained = [f"{-points[part]:.0f} are won back in {TITLES[part]}" for part in gains]
    yield f"Of 100 points {lost:.0f} are missing: {say_list(said + gained)}."
    for part in large:
        yield from explain_part(part, size, ground)
    if "exchange" in large:
        yield from propose_changes(size, ground)


def _in_words(part: str) -> str:
    return {
        "exchange": "exposed all-reduce", "waiting": "waiting for the slowest rank",
        "data": "waiting for samples", "other": "what no part accounts for",
    }.get(part, TITLES[part])  # fmt: skip


def _describe_placements(pairs: Sequence[Pair], ground: Ground) -> Iterator[str]:
    for pair in pairs:
        size = ground.sizes[pair.key]
        percent = say_percent(pair.ratio.median, 0)
        yield (
            f"{size.np} ranks on {size.nodes} nodes run at {percent} of their rate on "
            f"{ground.sizes[pair.baseline].nodes} ({pair.key}: {pair.verdict})."
        )


def _describe_precisions(pairs: Sequence[Pair]) -> Iterator[str]:
    for pair in pairs:
        words = (
            f"{pair.key}: {pair.what} is {pair.ratio.median:.2f} times as fast (quartiles "
            f"{pair.ratio.q1:.2f} to {pair.ratio.q3:.2f}, {pair.verdict})"
        )
        if pair.loss_difference is not None:
            words += f"; losses differ by at most {say_percent(pair.loss_difference, 2)}"
        yield f"{words}."


def _describe_forecasts(sizes: Sequence[Size]) -> Iterator[str]:
    errors = {s.key: s.forecast.error for s in sizes if s.forecast.error is not None}
    if errors:
        worst = max(errors, key=lambda key: abs(errors[key]))
        off = f"{100 * errors[worst]:+.0f} % off"
        if len(errors) == 1:
            yield f"The scaling model predicts the step of {worst}, {off}."
        else:
            yield f"The scaling model predicts {len(errors)} steps, at worst {off} ({worst})."


def _describe_inconclusive(sizes: Sequence[Size]) -> Iterator[str]:
    unclear: dict[tuple[str, str], list[str]] = {}
    for size in sizes:
        if size.inconclusive:
            how = "Take only as rough" if _is_far_beyond(size) else "Conclude nothing from"
            unclear.setdefault((how, size.inconclusive), []).append(size.key)
    for (how, why), keys in unclear.items():
        yield f"{how} {say_list(keys)}: {why}."
    if unclear:
        yield (
            "Measure more repeats (a higher --repeats with the same --out), or all of it again on "
            "a quiet machine."
        )
