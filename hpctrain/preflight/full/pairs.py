"""Which two hosts have a bad link between them? All-reduces of two, each host in one at a time."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from hpctrain.bench.allreduce.measure import read_allreduce
from hpctrain.bench.trial import run_trial
from hpctrain.errors import HpctrainError
from hpctrain.preflight.check import FULL, Check
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.full.allreduce import as_fact, plan_trial_of
from hpctrain.preflight.full.place import Place, explain_failure
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE = "pairs"
ALL_PAIRS_HOSTS = 12  # up to so many hosts every pair is tried
MOST_ROUNDS = 4  # beyond that: so many partners for each host
PARALLEL = 16  # launches at once from this machine
SIZES = (4, 4 << 20)
REPEATS, BUDGET_S, TIMEOUT_S = 5, 8.0, 90.0
# Of the upper quartile of all pairs: where most links are slow, the good ones still count.
EXPECTED_PART, LEAST_PART = 0.5, 0.25

Pair = tuple[str, str]


def plan_rounds(hosts: Sequence[str]) -> list[list[Pair]]:
    """Return rounds of pairs in which each host stands once at most; every pair once in all.

    The tournament of chess clubs: one stays, the others go round (E. Lucas, Les jeux de
    demoiselles, 1883). Of many hosts only some rounds, spread over the circle.

    >>> plan_rounds(["a", "b", "c"])
    [[('b', 'c')], [('a', 'c')], [('a', 'b')]]
    """
    ring: list[str | None] = [*hosts, *([None] if len(hosts) % 2 else [])]
    count = len(ring) - 1
    rounds = []
    for turn in _choose_turns(count, len(hosts)):
        others = ring[1:]
        turned = [ring[0], *others[count - turn :], *others[: count - turn]]
        pairs = list(zip(turned, reversed(turned), strict=True))[: len(ring) // 2]
        rounds.append(
            [_in_order((a, b), hosts) for a, b in pairs if a is not None and b is not None]
        )
    return rounds


def _choose_turns(count: int, hosts: int) -> list[int]:
    if hosts <= ALL_PAIRS_HOSTS:
        return list(range(count))
    return [turn * count // MOST_ROUNDS for turn in range(MOST_ROUNDS)]


def _in_order(pair: Pair, hosts: Sequence[str]) -> Pair:
    first, second = sorted(pair, key=hosts.index)
    return first, second


def run_pairs(place: Place) -> dict[str, Any]:
    """Measure all pairs, round by round; return what each found, or why it found nothing."""
    hosts = {host.name: host for host in place.hosts or ()}
    if len(hosts) < 2:
        return {"skip": "one host has no pair; name more: --hosts FILE"}
    rounds = plan_rounds(tuple(hosts))
    stop = threading.Event()
    found: list[dict[str, Any]] = []

    def measure(numbered: tuple[int, Pair]) -> dict[str, Any]:
        number, pair = numbered
        here = tuple(replace(hosts[name], slots=1, max_slots=None) for name in pair)
        try:
            trial = plan_trial_of(
                place, f"pair-{number:05d}", 2, SIZES, REPEATS, BUDGET_S, TIMEOUT_S, here
            )
            points = as_fact(read_allreduce(run_trial(trial, stop=stop)))["points"]
        except HpctrainError as problem:
            return {"hosts": pair, "error": explain_failure(problem, place.folder)}
        large = max(points, key=lambda point: point["bytes"])
        return {
            "hosts": pair, "busbw_gb_per_s": large["busbw_gb_per_s"], "bytes": large["bytes"],
            "wrong": sum(point["wrong"] for point in points),
            "checked": sum(point["checked"] for point in points),
        }  # fmt: skip

    with ThreadPoolExecutor(PARALLEL) as pool:
        try:
            for pairs in rounds:
                begun = len(found)
                found += pool.map(measure, enumerate(pairs, start=begun))
                place.on_step(len(found))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {"pairs": found, "possible": math.comb(len(hosts), 2)}


def judge_pairs(fleet: Fleet) -> Iterator[Verdict]:
    """Name the hosts of each pair that failed, summed wrong or was slow."""
    found = fleet.facts.get(CODE, {"skip": "not run"})
    if "skip" in found:
        yield Verdict(CODE, SKIP, found["skip"])
        return
    if "error" in found:
        yield Verdict(CODE, FAIL, found["error"], "hpctrain preflight --only all-reduce")
        return
    pairs = found["pairs"]
    rates = sorted(pair["busbw_gb_per_s"] for pair in pairs if "error" not in pair)
    usual = rates[math.ceil(0.75 * len(rates)) - 1] if rates else 0.0
    bad = {tuple(pair["hosts"]) for pair in pairs if _is_bad(pair, usual)}
    tried = [tuple(pair["hosts"]) for pair in pairs]
    for pair in pairs:
        if tuple(pair["hosts"]) in bad:
            yield _judge_bad(pair, usual, blame(tuple(pair["hosts"]), bad, tried))
    good = [p["busbw_gb_per_s"] for p in pairs if tuple(p["hosts"]) not in bad]
    if good:
        yield Verdict(CODE, PASS, _summarize(good, pairs, found["possible"]))


def blame(pair: Pair, bad: set[Pair], tried: Sequence[Pair]) -> tuple[str, ...]:
    """Return the host that is bad with every partner, where it is one; else both.

    >>> tried = [("a", "b"), ("a", "c"), ("b", "c")]
    >>> blame(("a", "c"), {("a", "c"), ("b", "c")}, tried), blame(("a", "b"), {("a", "b")}, tried)
    (('c',), ('a', 'b'))
    """

    def is_always_bad(host: str) -> bool:
        mine = [each for each in tried if host in each]
        return len(mine) > 1 and all(each in bad for each in mine)

    culprits = tuple(host for host in pair if is_always_bad(host))
    return culprits if len(culprits) == 1 else pair


def _is_bad(pair: dict[str, Any], usual: float) -> bool:
    if "error" in pair or pair["wrong"]:
        return True
    return bool(pair["busbw_gb_per_s"] < EXPECTED_PART * usual)


def _judge_bad(pair: dict[str, Any], usual: float, hosts: tuple[str, ...]) -> Verdict:
    first, second = pair["hosts"]
    between = f"between {first} and {second}"
    fix = f"hpctrain bench allreduce -H {first}:1,{second}:1 --sizes 4,64k,4M"
    if "error" in pair:
        return Verdict(CODE, FAIL, f"{between}: {pair['error']}", fix, "a sum", hosts)
    if pair["wrong"]:
        found = f"{between}: {pair['wrong']:,} of {pair['checked']:,} elements are wrong"
        return Verdict(CODE, FAIL, found, fix, "none", hosts)
    rate = pair["busbw_gb_per_s"]
    found = f"{between}: {rate:.3g} GB/s busbw, {rate / usual:.0%} of what other pairs have"
    status = FAIL if rate < LEAST_PART * usual else WARN
    return Verdict(CODE, status, found, fix, f"about {usual:.3g} GB/s", hosts)


def _summarize(good: Sequence[float], pairs: Sequence[dict[str, Any]], possible: int) -> str:
    low, high = min(good), max(good)
    rates = f"{low:.3g} GB/s" if len(good) == 1 else f"{low:.3g} to {high:.3g} GB/s"
    share = "" if len(pairs) == possible else f", {len(pairs):,} of {possible:,} were tried"
    alone = "" if len(pairs) > 1 else "; with one pair there is none to compare it with"
    words = f"{len(good)} pairs" if len(good) > 1 else "1 pair"
    return f"{words} of hosts: {rates} busbw, every element right{share}{alone}"


PAIRS = Check(CODE, judge_pairs, (), FULL, needs_hosts=True)
