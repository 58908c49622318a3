"""Prove before a run which transport its ranks will use: a short launch of the same ranks.

It is an ordinary ``hpctrain run`` of the same hosts, ranks and configuration, in a process of its
own, whose ranks make one small exchange and send what NCCL or MPI says of it.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hpctrain.bench.transport.found import (
    TransportFound,
    describe_found,
    judge_transport,
    merge_found,
)
from hpctrain.bench.transport.mpi_report import parse_mpi_report
from hpctrain.bench.transport.nccl_log import parse_nccl_log
from hpctrain.bench.trial import Trial, config_for_trial, run_trial
from hpctrain.config import dump_toml
from hpctrain.errors import BenchError, LaunchError
from hpctrain.launch.plan import LaunchPlan
from hpctrain.launch.prepare import SAFE_PATH, Prepared
from hpctrain.rundir import read_events

WORKER = (sys.executable, *SAFE_PATH, "-m", "hpctrain.bench.transport.worker")
NAME = "transport"
EXCHANGE_LIMIT_S = 120.0  # the first import of torch from a cold disk takes most of it
SHOWN_RANKS = 4
# comm.backend of the trainer → what its gradients travel by; else what the MPI does.
_BY = {"ddp": "gloo", "horovod": "horovod"}


def prove_transport(
    expected: str, prepared: Prepared, plan: LaunchPlan, say: Callable[[str], None]
) -> TransportFound:
    """Return what ranks exchanged over, which is what was asked for.

    Args:
        expected: ``ib``, ``efa``, ``tcpx``, ``socket`` or ``nvlink``.
        say: called with a line before and after.

    Raises:
        LaunchError: another transport was used, or none could be told.
    """
    began_s = time.monotonic()
    say(f"transport: a short exchange on {plan.np} ranks shows whether it is {expected}")
    folder = Path(tempfile.mkdtemp(prefix="hpctrain-transport-"))
    trial = plan_transport_trial(folder, prepared, plan)
    try:
        run_path = run_trial(trial)
    except BenchError as failed:
        raise LaunchError(
            f"launch.require_transport: the probe failed, so that {expected} is not proved; "
            f"expected a short exchange to pass. {'; '.join(failed.messages)}"
        ) from failed
    hosts = len(plan.placement)
    reports = read_reports(run_path)
    found = find_transport(reports, hosts)
    problem = find_silent_ranks(reports, plan.np) or judge_transport(expected, found, hosts)
    if problem:
        said = "".join(f"\n  {line}" for line in found.evidence) if found else ""
        raise LaunchError(
            f"launch.require_transport: {problem}. Nothing was started. What is set, and by whom: "
            f"hpctrain env explain. The probe's logs: {run_path}{said}"
        )
    assert found is not None
    say(f"transport: {describe_found(found)}, proved in {time.monotonic() - began_s:.1f} s")
    remove_folder(folder)
    return found


def plan_transport_trial(folder: Path, prepared: Prepared, plan: LaunchPlan) -> Trial:
    """Return the launch of the same ranks that proves it."""
    request = prepared.request
    config = folder / "run.toml"
    config.write_text(dump_toml(config_for_trial(prepared.config)), encoding="utf-8")
    device = "cpu" if request.counts_cores else "auto"
    by = _BY.get(prepared.config.comm.backend, "mpi") if prepared.is_trainer else "mpi"
    return Trial(
        name=NAME,
        runs_dir=folder,
        np=plan.np,
        program=(*WORKER, "--device", device, "--by", by),
        hosts=request.hosts,
        ssh_config=Path(request.ssh_configs[0]) if request.ssh_configs else None,
        config_name=str(config),
        oversubscribe=request.oversubscribe,
        timeout_s=request.launch.start_timeout_s + EXCHANGE_LIMIT_S,
    )


def read_reports(run_path: Path) -> dict[int, dict[str, Any]]:
    """Return rank → what it reported in a finished probe."""
    events = (each for each in _all_events(run_path) if each.get("event") == "transport_report")
    return {event["rank"]: event for event in events}


def find_silent_ranks(reports: Mapping[int, Mapping[str, Any]], np: int) -> str:
    """Return which ranks' transports are not known; "" where all of them are.

    Of MPI rank 0 speaks for all; NCCL says of each rank what its own channels use.

    >>> find_silent_ranks({0: {"library": "gloo", "lines": []}}, 2)
    'the proof is not whole, got no report of rank 1; expected one of each of 2 ranks'
    """
    missing = [rank for rank in range(np) if rank not in reports]
    untold = [
        rank
        for rank, report in sorted(reports.items())
        if report["library"] == "nccl" and parse_nccl_log("\n".join(report["lines"])) is None
    ]
    for ranks, what in ((missing, "no report"), (untold, "no word of NCCL's transports")):
        if ranks:
            shown = ", ".join(str(rank) for rank in ranks[:SHOWN_RANKS])
            rest = len(ranks) - SHOWN_RANKS
            more = f" and {rest} more" if rest > 0 else ""
            named = "rank" if len(ranks) == 1 else "ranks"
            return (
                f"the proof is not whole, got {what} of {named} {shown}{more}; expected one of "
                f"each of {np} ranks"
            )
    return ""


def find_transport(reports: Mapping[int, Mapping[str, Any]], hosts: int) -> TransportFound | None:
    """Return what the ranks' reports come to together.

    Args:
        hosts: how many have ranks: gloo, which knows TCP alone, says nothing of it.
    """
    texts: dict[str, list[str]] = {}
    for _, report in sorted(reports.items()):
        texts.setdefault(report["library"], []).append("\n".join(report["lines"]))
    found = []
    for library, of_ranks in texts.items():
        if library == "gloo":
            found.append(TransportFound(library="gloo", between=("socket",) if hosts > 1 else ()))
        elif library == "nccl":
            found += [each for text in of_ranks if (each := parse_nccl_log(text))]
        elif each := parse_mpi_report(library, "\n".join(of_ranks)):
            found.append(each)
    return merge_found(found)


def _all_events(run_path: Path) -> Iterable[dict[str, Any]]:
    yield from read_events(run_path)
    for path in sorted((run_path / "ranks").glob("rank-*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):  # the last line of a killed rank
                yield json.loads(line)


def remove_folder(folder: Path) -> None:
    """Remove a proof that nobody needs any more."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
