"""Why a part of the step takes longer than in the baseline, and what would help; in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpctrain.bench.report.measured import Measured
from hpctrain.bench.report.models import SizeModel, host_cores, ranks_per_host
from hpctrain.bench.report.parts import TITLES
from hpctrain.bench.report.remedies import HIDDEN, LinkNeed, find_link_need, find_what_ifs
from hpctrain.bench.report.result import Size
from hpctrain.bench.report.stragglers import compute_without
from hpctrain.bench.report.wire import ExchangeSettings
from hpctrain.bench.report.words import say_list, say_number, say_percent

WORTH_POINTS = 3.0
"""Percent points that a part must have taken to be spoken of."""
ENOUGH = 1.05
"""More than so many times the bandwidth that there is, is more than there is."""
NEAR_ENOUGH, TOO_FAR = 0.05, 0.12
"""How far off a prediction may be beyond its band: to be asked without a word, and to be asked at
all. The scaling model is held to these, at the median and at worst (docs/prediction.md)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What findings rest on, all by a case's key."""

    sizes: Mapping[str, Size]
    measured: Mapping[str, Measured]
    models: Mapping[str, SizeModel | str]
    settings: ExchangeSettings
    environment: Mapping[str, Any]


def explain_part(part: str, size: Size, ground: Ground) -> Iterator[str]:
    if part == "backward" and size.lost_points["forward"] >= WORTH_POINTS:
        part = "forward"  # said once for both
    elif part == "forward" and size.lost_points["backward"] >= WORTH_POINTS:
        return
    if part in ("forward", "backward"):
        yield _explain_compute(size, ground)
    elif part == "waiting":
        yield _explain_waiting(size)
    elif part == "exchange":
        yield from _explain_exchange(size, ground)
    elif part == "data":
        yield "Samples come later than they are used: reading does not keep up with the step."
    elif part == "optimizer":
        yield from _explain_optimizer(size, ground)


def _explain_compute(size: Size, ground: Ground) -> str:
    base, measured = ground.sizes[size.baseline], ground.measured[size.key]
    ratio = measured.work_per_step / size.np
    ratio /= ground.measured[base.key].work_per_step / base.np
    ideal_s = (base.parts_s["forward"] + base.parts_s["backward"]) * ratio
    slower = (size.parts_s["forward"] + size.parts_s["backward"]) / ideal_s - 1
    if size.stragglers:
        slow = {straggler.rank for straggler in size.stragglers}
        share = compute_without(measured.samples, slow)
        if share is not None:
            others = share * size.step_s / ideal_s - 1
            return _say_stragglers(size, slower, others, _find_cause(size, ground))
    return (
        f"Computing itself takes {100 * slower:.0f} % longer than in the baseline: "
        f"{_find_cause(size, ground)}."
    )


def _say_stragglers(size: Size, slower: float, others: float, cause: str) -> str:
    """Say what of slower computing is the stragglers' own, and what the other ranks share."""
    who = _name_stragglers(size)
    mean = (
        f"Computing takes {100 * slower:.0f} % longer than in the baseline, as a mean of all ranks"
    )
    if 100 * others < WORTH_POINTS:
        return f"{mean}: that is {who}; the others compute hardly slower than there."
    return f"{mean}, and {100 * others:.0f} % longer without {who}: {cause}."


def _find_cause(size: Size, ground: Ground) -> str:
    """Return what slows all ranks alike."""
    measured = ground.measured[size.key]
    if measured.samples[0].device_name is not None:
        if size.mode == "strong":
            return "smaller shares of the batch use a GPU less well"
        return "the exchange takes part of each GPU, or its clock falls"
    cores = host_cores(ground.environment)
    ranks = ranks_per_host(measured)
    for host, count in ranks.items():
        if cores.get(host) and count > cores[host]:
            return f"{count} ranks take turns on {cores[host]} cores"
    most = max(ranks.values())
    known = next((cores[host] for host in ranks if cores.get(host)), None)
    if most > 1:
        on = f"'s {known} cores" if known else ""
        return (
            f"{most} ranks share one machine{on}, with its caches, memory bandwidth and the "
            "threads of the exchange"
        )
    return "the exchange, with its threads, runs on the cores that compute"


def _name_stragglers(size: Size) -> str:
    """Return the stragglers with their hosts, the slowest first."""
    hosts = {straggler.host for straggler in size.stragglers}
    if len(size.stragglers) > 1 and len(hosts) == 1:
        ranks = sorted(straggler.rank for straggler in size.stragglers)
        return f"ranks {say_list([str(rank) for rank in ranks])} on {hosts.pop()}"
    return say_list([f"rank {s.rank} on {s.host}" for s in size.stragglers])


def _explain_waiting(size: Size) -> str:
    if not size.stragglers:
        return "No rank stands out as the slowest: they take turns."
    first, who = size.stragglers[0], _name_stragglers(size)
    return (
        f"{who[0].upper()}{who[1:]} {'is' if len(size.stragglers) == 1 else 'are'} up to "
        f"{100 * first.slower:.0f} % slower than the others, mostly in {TITLES[first.part]}."
    )


def _explain_exchange(size: Size, ground: Ground) -> Iterator[str]:
    model = ground.models.get(size.key)
    if isinstance(model, str) or model is None:
        if size.wire_bytes and size.parts_s["backward"]:
            backward_s = size.parts_s["backward"]
            needed = size.wire_bytes / backward_s / 1e9
            yield (
                f"Hidden behind backward, each rank would have to send at {say_number(needed)} "
                f"GB/s at least; what it gets is not known: {model}."
            )
        return
    need = find_link_need(model)
    if _is_too_far(size):
        yield f"The link gives {say_number(need.gives_gb_per_s)} GB/s for buckets like these."
    else:
        yield _say_need(need, size)


def _say_need(need: LinkNeed, size: Size) -> str:
    gives = f"The link gives {say_number(need.gives_gb_per_s)} GB/s"
    left = say_percent(need.left, 0)
    if need.needs_gb_per_s > ENOUGH * need.gives_gb_per_s:
        needs = f"{gives} where this model needs {say_number(need.needs_gb_per_s)}"
        if need.left <= HIDDEN:
            return f"{needs} to hide the exchange behind backward."
        return f"{needs}; {left} of the step, which is latency, would stay exposed even then."
    if need.left > HIDDEN:
        words = f"{gives}, and more would not help: {left} of the step is exposed latency"
    else:
        words = f"{gives}, enough to hide the exchange"
    if size.parts_s["exchange"] / size.step_s > need.exposed + HIDDEN:
        words += "; beside computing it gets less than alone"
    return f"{words}."


def _explain_optimizer(size: Size, ground: Ground) -> Iterator[str]:
    if ground.settings.sharded:
        return
    if size.mode == "strong":
        yield (
            "The optimizer updates all parameters on every rank, however small its share of the "
            "batch: optim.sharded = true would share that out."
        )
    elif (
        size.nodes == 1 and size.np > 1 and ground.measured[size.key].samples[0].device_name is None
    ):
        yield "The optimizer reads and writes memory, whose bandwidth the ranks share."


def propose_changes(size: Size, ground: Ground) -> Iterator[str]:
    """Yield what would shorten the exposed exchange; or that the model is too far off to say."""
    model = ground.models.get(size.key)
    if model is None or isinstance(model, str):
        return
    missed = _is_missed(size)
    off = f"{100 * size.forecast.error:+.0f} % off here, beyond its error band" if missed else ""
    if _is_too_far(size):
        yield f"The scaling model is {off}: so it is not asked what would lift that."
        return
    on_gpu = ground.measured[size.key].samples[0].device_name is not None
    what_ifs = find_what_ifs(
        size.efficiency, model, ground.settings, over_network=size.nodes > 1 or on_gpu,
        at_most=_without_exchange(size),
    )  # fmt: skip
    said = [f"{what.words} to about {say_percent(what.efficiency, 0)}" for what in what_ifs]
    if said:
        first = said[0].replace(" to about", " would lift it to about", 1)
        model_words = f"the scaling model, which is {off}" if missed else "the scaling model"
        yield f"By {model_words}, {', '.join([first, *said[1:]])}."


def _is_missed(size: Size) -> bool:
    """Return whether the model's band and the measured quartiles have nothing in common."""
    forecast = size.forecast
    if forecast.kind != "predicted" or abs(forecast.error) <= NEAR_ENOUGH:
        return False
    shortest_s, longest_s = (size.work_per_step / rate for rate in (size.rate.q3, size.rate.q1))
    return forecast.low_s > longest_s or forecast.high_s < shortest_s


def _is_too_far(size: Size) -> bool:
    return _is_missed(size) and abs(size.forecast.error) > TOO_FAR


def _without_exchange(size: Size) -> float:
    """Return the efficiency of the same step without its exposed exchange: no change beats it."""
    rest = max(1e-9, 1 - size.parts_s["exchange"] / size.step_s)  # clocks may disagree a little
    points = max(0.0, size.lost_points["exchange"])
    return min(1.0, size.efficiency / rest, size.efficiency + points / 100)
