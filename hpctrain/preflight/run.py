"""Carry out a preflight: ask the hosts, judge what they say."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpctrain.errors import ConfigError, did_you_mean, raise_all
from hpctrain.launch.ssh_config import host_alias
from hpctrain.preflight.again import with_same_words
from hpctrain.preflight.check import FULL, Check, Probe
from hpctrain.preflight.checks import CHECKS
from hpctrain.preflight.checks.config import CONFIG
from hpctrain.preflight.checks.paths import SHARED
from hpctrain.preflight.checks.reach import REACH
from hpctrain.preflight.checks.way_back import WAY_BACK
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.gather import Gathered, ask_hosts, this_python
from hpctrain.preflight.markers import find_markers, new_word
from hpctrain.preflight.request import Request, write_ssh_config
from hpctrain.preflight.ssh_words import SshTarget, ssh_by_hand
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, WARN, Verdict, merge
from hpctrain.preflight.way_back import Listening, listening
from hpctrain.preflight.way_there import find_broken_steps


def choose_checks(level: str, only: Collection[str] = (), *, hosts: int = 1) -> list[Check]:
    """Return the checks of a level, in order; those that `only` names, whatever their level.

    Args:
        hosts: how many machines take part, the launching one included.

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


def find_wrong_already(request: Request) -> list[Verdict]:
    """Return what is wrong, or odd, before any host is asked."""
    fleet = Fleet(tasks=request.tasks, local=request.local, facts=request.facts)
    return merge([*request.verdicts, *(v for v in CONFIG.judge(fleet) if v.status in (WARN, FAIL))])


def run_checks(
    request: Request, checks: list[Check], on_answer: Callable[[str], None] = lambda host: None
) -> tuple[Fleet, list[Verdict]]:
    """Ask all hosts what the checks need, and judge; return the fleet and merged verdicts.

    Checks of the full level are left to :func:`hpctrain.preflight.full.run.run_full`.
    """
    checks = [check for check in checks if check.level != FULL]
    probes: dict[str, Probe] = {p.name: p for check in checks for p in check.probes}
    fleet = Fleet(tasks=request.tasks, local=request.local, facts=request.facts)
    if not checks:
        return fleet, merge(request.verdicts)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hpctrain-preflight-"))
        request = write_ssh_config(request, folder)
        head = None
        if WAY_BACK.code in probes and request.head_address:
            head = stack.enter_context(listening(request.head_address))
        tasks = _complete_tasks(request, tuple(probes), head)
        gathered = ask_hosts(
            tasks, request.local, request.ssh_options, this_python(),
            python_options=request.python_options,
            timeout_s=max((probe.timeout_s for probe in probes.values()), default=5.0),
            on_answer=on_answer,
        )  # fmt: skip
        fleet = Fleet(
            tasks=tasks, answers=gathered.answers, unreachable=gathered.unreachable,
            local=request.local,
            facts={
                **request.facts,
                **_look_again(request, gathered, tasks),
                **({WAY_BACK.code: head} if head else {}),
                "contacts": gathered.contacts,
                "by_hand": _ssh_by_hand(request),
            },
        )  # fmt: skip
        if fleet.unreachable and REACH not in checks:
            checks = [REACH, *checks]  # whatever is asked for, silence is no pass
        verdicts = [verdict for check in checks for verdict in check.judge(fleet)]
    return fleet, with_same_words(merge([*request.verdicts, *verdicts]), request.asked)


def _complete_tasks(
    request: Request, probes: tuple[str, ...], head: Listening | None
) -> dict[str, NodeTask]:
    """Add to each host's task which probes it runs, and what only this moment knows."""
    word = new_word()
    tasks = {}
    for place, (host, task) in enumerate(request.tasks.items()):
        more: dict[str, Any] = {**task.more, "marker": f"{word}-{place}"}
        if head is not None:
            more[WAY_BACK.code] = head.as_json()
        tasks[host] = replace(task, probes=probes, more=more)
    return tasks


def _look_again(
    request: Request, gathered: Gathered, tasks: Mapping[str, NodeTask]
) -> dict[str, Any]:
    """Ask what only shows once all hosts have been asked: broken ways, and who sees whose files."""
    facts: dict[str, Any] = {}
    silent = {h: gathered.contacts[h] for h in gathered.unreachable if h not in request.local}
    if silent:
        facts[REACH.code] = find_broken_steps(
            silent, request.ssh_options, this_python(), ssh_config=request.ssh_config
        )
    written = gathered.answers.get(SHARED.probes[0].name, {})
    markers = {
        host: (answer.value["folder"], tasks[host].more["marker"])
        for host, answer in written.items()
        if not answer.error and answer.value.get("marked")
    }
    if markers:
        facts[SHARED.code] = find_markers(markers, request.local, request.ssh_options)
    return facts


def _ssh_by_hand(request: Request) -> dict[str, str]:
    """Return host → how a person logs in there, without what this preflight has written."""
    config = request.ssh_config
    targets = (SshTarget(h.name, h.port or 22, h.user or "", "", config) for h in request.hosts)
    return {each.host: ssh_by_hand(host_alias(each.host), each) for each in targets}


def split_hosts(fleet: Fleet, verdicts: Sequence[Verdict]) -> tuple[list[str], list[str]]:
    """Return the hosts that passed and those of which something failed.

    A failure that names no host (a configuration) is no host's.
    """
    failed = {host for v in verdicts if v.status == FAIL for host in v.hosts}
    return [h for h in fleet.hosts if h not in failed], [h for h in fleet.hosts if h in failed]
