"""May ranks open as many files as there are connections?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpctrain.preflight.check import Check
from hpctrain.preflight.checks.host_state import HOST
from hpctrain.preflight.fleet import Fleet, on_each_host
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, WARN, Verdict

CODE = "open-files"
# What a rank with torch and Horovod has open besides connections, with room for data files.
OWN_FILES = 128
# mpirun and its daemons: pipes for each rank of theirs.
FILES_A_LOCAL_RANK = 4
# The launcher's own: a connection and two files (hpctrain/launch/start.py).
LAUNCHER_FILES_A_RANK = 3
FIX = "'* - nofile 65536' in /etc/security/limits.conf, then log in again"


def judge_open_files(fleet: Fleet) -> Iterator[Verdict]:
    """Judge the limit of ranks on each host, and the launching machine's own."""
    most = fleet.facts.get(CODE)
    needed = LAUNCHER_FILES_A_RANK * fleet.np + OWN_FILES
    if most is not None and most < needed:
        found = f"the launching machine's hard limit is {most}"
        yield Verdict(CODE, FAIL, found, FIX, f"{needed} for {fleet.np} ranks")
    yield from on_each_host(CODE, HOST.name, check_open_files)(fleet)


def check_open_files(task: NodeTask, value: dict[str, Any]) -> Verdict:
    """Compare the limit with a connection to every other rank, which is what a rank may come to."""
    soft, hard = value["nofile"]
    if soft is None:
        return Verdict(CODE, PASS, "unlimited")
    least = OWN_FILES + FILES_A_LOCAL_RANK * task.ranks
    most = OWN_FILES + max(task.np, FILES_A_LOCAL_RANK * task.ranks)
    upper = "unlimited" if hard is None else str(hard)
    found = f"{soft} (hard limit {upper})"
    if soft < least:
        return Verdict(CODE, FAIL, found, FIX, f"{least} for {task.ranks} ranks there")
    if soft < most:
        expected = f"{most}: a rank may connect to all {task.np}"
        return Verdict(CODE, WARN, found, FIX, expected)
    return Verdict(CODE, PASS, str(soft))


OPEN_FILES = Check(CODE, judge_open_files, (HOST,))
