"""Show what a preflight would do: which checks, where, and for how long at most."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hpctrain.preflight.check import FULL, Check
from hpctrain.preflight.full import allreduce, pairs, rehearsal
from hpctrain.preflight.gather import START_S
from hpctrain.preflight.request import Request
from hpctrain.preflight.show import name_hosts

HOSTS, LAUNCHER, RANKS = "hosts", "launcher", "ranks"
# What starts ranks: the longest that it may take (s), and how often.
_LAUNCHES = {
    allreduce.CODE: (allreduce.TIMEOUT_S, ""),
    pairs.CODE: (pairs.TIMEOUT_S, " a pair"),
    rehearsal.CODE: (rehearsal.TIMEOUT_S, " a launch, of two"),
}


def plan_rows(request: Request, checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Return for each check where it looks, and its limit on each host (s)."""
    rows = []
    for check in checks:
        limit_s: float | None = None
        if check.level == FULL and check.code in _LAUNCHES:
            where, limit_s = RANKS, _LAUNCHES[check.code][0]
        elif check.probes:
            where, limit_s = HOSTS, max(probe.timeout_s for probe in check.probes) + START_S
        else:
            where = LAUNCHER
        asked = [] if where == LAUNCHER else list(request.tasks)
        rows.append({"code": check.code, "level": check.level, "where": where, "hosts": asked,
                     "limit_s": limit_s})  # fmt: skip
    return rows


def render_plan(request: Request, checks: Sequence[Check]) -> str:
    """Return the same for people."""
    rows = plan_rows(request, checks)
    width = max((len(row["code"]) for row in rows), default=0)
    return "\n".join(
        f"{row['level']:5}  {row['code']:{width}}  {_describe(row, request)}" for row in rows
    )


def render_plan_json(request: Request, checks: Sequence[Check]) -> str:
    """Return the same for programs."""
    return json.dumps(plan_rows(request, checks), indent=2)


def _describe(row: dict[str, Any], request: Request) -> str:
    names = name_hosts(row["hosts"], len(request.tasks))
    if row["where"] == LAUNCHER:
        return "judged here, from how the hosts answered"
    if row["where"] == HOSTS:
        return f"on {names}, {row['limit_s']:.0f} s at most"
    np = request.plan.np if request.plan else 0
    ranks = "2 ranks" if row["code"] == pairs.CODE else f"{np} ranks" if np != 1 else "1 rank"
    return f"{ranks} on {names}, {row['limit_s']:.0f} s{_LAUNCHES[row['code']][1]} at most"
