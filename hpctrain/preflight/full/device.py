"""Does each GPU compute right, and as fast as its like? Without GPUs: does the CPU?

Every GPU of a host works at once, as in training, each in a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hpctrain.executor import Command, Completed, LocalExecutor, run_on_all
from hpctrain.gpu_peaks import TERA, peak_flops
from hpctrain.preflight.check import FULL, Check, Probe
from hpctrain.preflight.fleet import Fleet, not_asked
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, WARN, Verdict

DEVICES_PROBE = "devices"
WORKER = ("-m", "hpctrain.preflight.full.worker_device")
WORKER_TIMEOUT_S = 150.0  # of it two minutes for the first import of torch from a cold disk
PROBE_TIMEOUT_S = WORKER_TIMEOUT_S + 30.0
# Parts of the dense peak. What tuned products reach is 0.87 on an A100, 0.80 on an H100 and an
# H200, 0.78 on a B200 (S. Bekman, Machine Learning Engineering, "Maximum achievable matmul FLOPS").
EXPECTED_PART, LEAST_PART = 0.6, 0.3
LIKE_PART = 0.85  # of the median of the devices of its kind
LEAST_LIKE = 3  # devices that make a median
_PRECISIONS = {"apex-O1": "fp16", "apex-O2": "fp16"}


class Seen(NamedTuple):
    """A device of a host and what its worker found, or why it found nothing ("error")."""

    host: str
    answer: Mapping[str, Any]

    @property
    def kind(self) -> tuple[str, str]:
        return self.answer["name"], self.answer["precision"]


def probe_devices(task: NodeTask) -> list[dict[str, Any]]:
    """Load every device of this host that ranks would use, all at once."""
    from hpctrain.probe import probe_this_host

    train = task.config.get("train", {})
    executor = LocalExecutor()
    gpus = () if train.get("device") == "cpu" else probe_this_host(os.environ, executor).gpus
    names = [f"cuda:{number}" for number in range(len(gpus))] or ["cpu"]
    wanted = train.get("precision", "bf16")
    precision = _PRECISIONS.get(wanted, wanted)

    def measure(name: str) -> dict[str, Any]:
        words = (*WORKER, "--device", name, "--precision", precision)
        done = executor.run(Command((sys.executable, *words)), timeout_s=WORKER_TIMEOUT_S)
        return read_worker(name, done)

    return run_on_all(measure, names)


def read_worker(device: str, done: Completed) -> dict[str, Any]:
    """Return what a worker printed; where it printed nothing of use, why."""
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        ended = f"exit code {done.returncode}: {done.last_words}"
        return {"device": device, "error": ended}


def judge_matrix(fleet: Fleet) -> Iterator[Verdict]:
    """Judge the products: right to within their precision, the same each time, fast enough."""
    yield from _unseen("matrix", fleet)
    good: list[Seen] = []
    for seen in _all_seen(fleet):
        if wrong := _wrong_product(seen.answer):
            fix = "take this host out of the run; nvidia-smi -q -d ECC,ROW_REMAPPER"
            found = f"{seen.answer['device']}: {wrong}"
            yield Verdict("matrix", FAIL, found, fix, "right products", (seen.host,))
        elif (verdict := _slow_product(seen)) is not None:
            yield verdict
        else:
            good.append(seen)
    good = yield from _sort_out_slow("matrix", good, "flops_per_s", _render_flops)
    yield from _summarize("matrix", good, "flops_per_s", _render_flops, _explain_product)


def judge_memory_rate(fleet: Fleet) -> Iterator[Verdict]:
    """Judge the copies: nothing lost, and as fast as on devices of the same kind."""
    yield from _unseen("memory-rate", fleet)
    good: list[Seen] = []
    for seen in _all_seen(fleet):
        if count := seen.answer["copy_differing"]:
            found = f"{seen.answer['device']}: {count:,} numbers changed while they were copied"
            fix = "take this host out of the run; nvidia-smi -q -d ECC"
            yield Verdict("memory-rate", FAIL, found, fix, "none", (seen.host,))
        else:
            good.append(seen)
    good = yield from _sort_out_slow("memory-rate", good, "copy_bytes_per_s", _render_bytes)
    yield from _summarize("memory-rate", good, "copy_bytes_per_s", _render_bytes, _explain_copy)


def _all_seen(fleet: Fleet) -> list[Seen]:
    answers = fleet.answers_of(DEVICES_PROBE)
    return [
        Seen(host, each) for host, all_ in answers.items() for each in all_ if "error" not in each
    ]


def _unseen(code: str, fleet: Fleet) -> Iterator[Verdict]:
    """Tell of hosts that did not answer, and of devices whose worker failed."""
    for host, answer in fleet.answers.get(DEVICES_PROBE, {}).items():
        if answer.error:
            yield not_asked(code, host, answer.error)
            continue
        for each in answer.value:
            if "error" in each:
                fix = "nvidia-smi; dmesg | grep -i xid" if each["device"] != "cpu" else ""
                found = f"{each['device']}: {each['error']}"
                yield Verdict(code, FAIL, found, fix or "hpctrain preflight --only torch",
                              "a result", (host,))  # fmt: skip


def _wrong_product(answer: Mapping[str, Any]) -> str:
    if not answer["error_part"] <= answer["tolerance"]:  # so that NaN is wrong
        return (
            f"wrong product, off by {answer['error_part']:.2g} of the largest element; "
            f"{answer['tolerance']:.2g} is allowed for {answer['precision']}"
        )
    if answer["differing"]:
        return f"{answer['differing']:,} elements differ when the same product is taken again"
    return ""


def _slow_product(seen: Seen) -> Verdict | None:
    part = _part_of_peak(seen.answer)
    if part is None or part >= EXPECTED_PART:
        return None
    rate = _render_flops(seen.answer["flops_per_s"])
    found = f"{seen.answer['device']}, {seen.answer['name']}: {rate}, {part:.0%} of its peak"
    status = FAIL if part < LEAST_PART else WARN
    fix = "nvidia-smi -q -d PERFORMANCE,CLOCK,POWER; is another process on it?"
    return Verdict("matrix", status, found, fix, f"{EXPECTED_PART:.0%} or more", (seen.host,))


def _part_of_peak(answer: Mapping[str, Any]) -> float | None:
    peak = peak_flops(answer["name"], answer["precision"])
    return None if peak is None else answer["flops_per_s"] / peak


def _sort_out_slow(
    code: str, all_seen: Sequence[Seen], field: str, render: Callable[[float], str]
) -> Generator[Verdict, None, list[Seen]]:
    """Yield a warning for each GPU that is slower than its like; return the others."""
    kinds: dict[tuple[str, str], list[float]] = {}
    for seen in all_seen:
        kinds.setdefault(seen.kind, []).append(seen.answer[field])
    left = []
    for seen in all_seen:
        rates = kinds[seen.kind]
        usual = statistics.median(rates)
        if seen.answer["device"] == "cpu" or len(rates) < LEAST_LIKE or (
            seen.answer[field] >= LIKE_PART * usual
        ):  # fmt: skip
            left.append(seen)
            continue
        rate = render(seen.answer[field])
        found = f"{seen.answer['device']}: {rate}, {seen.answer[field] / usual:.0%} of the median"
        fix = "nvidia-smi -q -d PERFORMANCE,CLOCK,TEMPERATURE: every step waits for the slowest"
        yield Verdict(code, WARN, found, fix, f"about {render(usual)}", (seen.host,))
    return left


def _summarize(
    code: str,
    all_seen: Sequence[Seen],
    field: str,
    render: Callable[[float], str],
    explain: Callable[[Mapping[str, Any]], str],
) -> Iterator[Verdict]:
    """Yield a line for each kind of device, however many there are."""
    kinds: dict[tuple[str, str], list[Seen]] = {}
    for seen in all_seen:
        kinds.setdefault(seen.kind, []).append(seen)
    for (name, _), group in kinds.items():
        rates = sorted(seen.answer[field] for seen in group)
        shown = render(rates[0])
        if len(rates) > 1:
            shown = f"{shown} to {render(rates[-1])}, median {render(statistics.median(rates))}"
        count = f"{len(rates)} x " if len(rates) > 1 else ""
        hosts = tuple(dict.fromkeys(seen.host for seen in group))
        found = f"{count}{name}: {shown}; {explain(group[0].answer)}"
        yield Verdict(code, PASS, found, hosts=hosts)


def _explain_product(answer: Mapping[str, Any]) -> str:
    part = _part_of_peak(answer)
    peak = "not judged against a peak" if part is None else f"{part:.0%} of the peak"
    return f"{answer['precision']}, size {answer['size']}, {peak}; products right"


def _explain_copy(answer: Mapping[str, Any]) -> str:
    return f"copies of {answer['copy_bytes'] >> 20} MiB, bytes read and written; nothing changed"


def _render_flops(rate: float) -> str:
    return f"{_render_number(rate / TERA)} TFLOP/s"


def _render_bytes(rate: float) -> str:
    return f"{_render_number(rate / 1e9)} GB/s"


def _render_number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


DEVICES = Probe(DEVICES_PROBE, probe_devices, PROBE_TIMEOUT_S)
MATRIX = Check("matrix", judge_matrix, (DEVICES,), FULL)
MEMORY_RATE = Check("memory-rate", judge_memory_rate, (DEVICES,), FULL)
