"""``python -m hpctrain.preflight.ask_node``: look at this host, as a task on stdin says.

Every probe runs at once, in a process of its own and with its own limit, so that what hangs (a dead
file system, a driver) costs its own answer only. Prints the answers behind :data:`MARK`: a login
shell may have printed before.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time

from hpctrain.executor import Forked, run_forked
from hpctrain.preflight.task import NodeTask, task_from_json

MARK = "hpctrain-answers:"
# When Python started here, on the clock of time.monotonic(); see gather.py.
BEGAN_VARIABLE = "HPCTRAIN_PREFLIGHT_BEGAN"


def look_at_host(task: NodeTask) -> dict[str, Forked]:
    """Return probe → answer, for the probes that the task names."""
    from hpctrain.preflight.checks import PROBES

    chosen = {name: PROBES[name] for name in task.probes if name in PROBES}
    unknown = Forked(error="this host's hpctrain has no such probe: another version?")
    answers = run_forked(
        {name: (functools.partial(p.look, task), p.timeout_s) for name, p in chosen.items()}
    )
    return {name: answers.get(name, unknown) for name in task.probes}


def main() -> None:
    began_s = float(os.environ.pop(BEGAN_VARIABLE, "nan"))
    task = task_from_json(json.load(sys.stdin))
    answers = {name: answer._asdict() for name, answer in look_at_host(task).items()}
    spent_s = time.monotonic() - began_s
    answer = {"answers": answers, "spent_s": spent_s if spent_s == spent_s else None}
    print("\n" + MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
