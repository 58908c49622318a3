"""Carry out a preflight: ask the hosts, judge what they say."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from dataclasses import replace

from hpctrain.errors import ConfigError, did_you_mean, raise_all
from hpctrain.preflight.check import FULL, Check, Probe
from hpctrain.preflight.checks import CHECKS
from hpctrain.preflight.checks.reach import REACH
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.gather import ask_hosts, this_python
from hpctrain.preflight.request import Request, write_ssh_config
from hpctrain.preflight.verdict import FAIL, Verdict, merge


def choose_checks(level: str, only: Collection[str] = (), *, hosts: int = 1) -> list[Check]:
    """Return the checks of a level, in order; those that `only` names, whatever their level.

    Raises:
        ConfigError: with every code that is no check's.
    """
    codes = [check.code for check in CHECKS]
    raise_all(
        ConfigError,
        [
            f"--only: unknown check, got '{code}'; expected one of {', '.join(codes)}."
            f"{did_you_mean(code, codes)}"
            for code in dict.fromkeys(only)
            if code not in codes
        ],
    )
    if only:
        return [check for check in CHECKS if check.code in only]
    chosen = [check for check in CHECKS if level == FULL or check.level != FULL]
    return [check for check in chosen if hosts > 1 or not check.needs_hosts]


def run_checks(
    request: Request, checks: list[Check], on_answer: Callable[[str], None] = lambda host: None
) -> tuple[Fleet, list[Verdict]]:
    """Ask all hosts what the checks need, and judge; return the fleet and merged verdicts.

    Checks of the full level are left to :func:`hpctrain.preflight.full.run.run_full`.
    """
    checks = [check for check in checks if check.level != FULL]
    probes: dict[str, Probe] = {p.name: p for check in checks for p in check.probes}
    tasks = {host: replace(task, probes=tuple(probes)) for host, task in request.tasks.items()}
    fleet = Fleet(tasks=tasks, local=request.local, facts=request.facts)
    if not checks:
        return fleet, merge(request.verdicts)
    with tempfile.TemporaryDirectory(prefix="hpctrain-preflight-") as folder:
        request = write_ssh_config(request, folder)
        answers, unreachable = ask_hosts(
            tasks, request.local, request.ssh_options, this_python(),
            python_options=request.python_options,
            timeout_s=max((probe.timeout_s for probe in probes.values()), default=5.0),
            on_answer=on_answer,
        )  # fmt: skip
        if unreachable and REACH not in checks:  # never a silent pass
            checks = [REACH, *checks]
        fleet = replace(
            fleet, answers=answers, unreachable=unreachable,
            facts={**request.facts, "ssh_options": request.ssh_options},
        )  # fmt: skip
        verdicts = [verdict for check in checks for verdict in check.judge(fleet)]
    return fleet, merge([*request.verdicts, *verdicts])


def split_hosts(fleet: Fleet, verdicts: list[Verdict]) -> tuple[list[str], list[str]]:
    """Return the hosts that passed and those of which something failed.

    A failure that names no host (a configuration) is no host's.
    """
    failed = {host for v in verdicts if v.status == FAIL for host in v.hosts}
    return [h for h in fleet.hosts if h not in failed], [h for h in fleet.hosts if h in failed]
