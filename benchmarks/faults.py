"""What happens when something breaks? Trainings on lab nodes and here, disturbed at random moments.

    python benchmarks/faults.py                           # every case 20 times, slow ones 5 times
    python benchmarks/faults.py --cases kill,stop --repeats 3
    python benchmarks/faults.py --out benchmarks/results/faults.json      # goes on where it was

Each time: a training begins, is disturbed, ends; what is left is looked at; it goes on with
`hpctrain run --resume` to its last step; every loss is compared with an undisturbed run's. The
table says how long it took until the launcher noticed, how many steps were done again, whether
processes were left on any host (of a host that is cut off: after launch.cut_off_s), and whether a
half checkpoint was. Needs root, for the lab. Exit code 1 where anything did not end as it should.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from faulting.cases import CASES, Case
from faulting.nodes import nodes_up
from faulting.training import Place
from faulting.trial import run_trial, run_undisturbed
from measuring import environment, warn_if_busy, write_result

REPEATS, REPEATS_OF_SLOW = 20, 5
LAB = "faults"


def render_table(trials: dict[str, list[dict[str, Any]]]) -> str:
    """Return a Markdown table: a row for each case."""
    lines = [
        "| fault | times | as it should | noticed after, s | goal | ended after, s | steps lost | "
        "final loss | processes left | half checkpoints |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in trials.items():
        if found:
            lines.append(_row(CASES[name], found))
    return "\n".join(lines)


def _row(case: Case, found: Sequence[dict[str, Any]]) -> str:
    good = sum(not trial["problems"] for trial in found)
    differs = [trial["loss_differs"] for trial in found]
    same = "bitwise equal" if all(each == 0 for each in differs) else f"differs: {differs}"
    goal = f"{case.notice_s:g}" if case.notice_s else ""
    cells = [
        case.title, str(len(found)), str(good), _spread(found, "noticed_s"), goal,
        _spread(found, "ended_s"), _spread(found, "lost_steps"), same,
        str(sum(trial["left"] for trial in found)),
        str(sum(trial["half_checkpoints"] for trial in found)),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _spread(found: Sequence[dict[str, Any]], key: str) -> str:
    """Return median and largest of what is known."""
    values = [trial[key] for trial in found if trial[key] is not None]
    if not values:
        return ""
    return f"{statistics.median(values):.3g} (at most {max(values):.3g})"


def describe_commits(trials: dict[str, list[dict[str, Any]]]) -> str:
    """Return which commits were measured: a record that was gone on with may hold several."""
    counts = Counter(
        trial.get("commit") or "unknown" for found in trials.values() for trial in found
    )
    return "commits: " + ", ".join(
        f"{name[:12]} ({count} trials)" for name, count in counts.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=",".join(CASES), help="some of: %(default)s")
    parser.add_argument("--repeats", type=int, help="of each case (default: 20, slow ones 5)")
    parser.add_argument("--seed", type=int, help="of the random moments (default: the time)")
    parser.add_argument("--out", type=Path, help="keep raw values and environment as JSON")
    asked = parser.parse_args()
    names = asked.cases.split(",")
    if unknown := [name for name in names if name not in CASES]:
        parser.error(
            f"--cases: no such case, got {', '.join(unknown)}; expected {', '.join(CASES)}"
        )
    warn_if_busy()
    record: dict[str, Any] = {"what": "faults", **environment(("torch", "horovod"))}
    trials: dict[str, list[dict[str, Any]]] = {name: [] for name in CASES}
    if asked.out is not None and asked.out.exists():
        trials |= json.loads(asked.out.read_text())["trials"]
    record["trials"] = trials
    dice = random.Random(asked.seed if asked.seed is not None else time.time_ns())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
        here = Place(folder / "here")
        here.prepare()
        undisturbed = run_undisturbed(here)
        nodes = None
        for name in names:
            case = CASES[name]
            if case.on_nodes and nodes is None:
                nodes = stack.enter_context(nodes_up(folder / "nodes", LAB))
            wanted = asked.repeats or (REPEATS_OF_SLOW if case.is_slow else REPEATS)
            while len(trials[name]) < wanted:
                number = len(trials[name]) + 1
                place = nodes.place if case.on_nodes and nodes is not None else here
                began_s = time.monotonic()
                trial = run_trial(
                    case, place, nodes, undisturbed, f"{name}-{number}", dice,
                    commit=str(record.get("commit", "")),
                )  # fmt: skip
                took_s = time.monotonic() - began_s
                trials[name].append(trial.as_record())
                print(f"{name} {number}/{wanted} in {took_s:.0f} s: noticed {trial.noticed_s}, "
                      f"ended {trial.ended_s}, {trial.blamed or trial.note} "
                      f"{'; '.join(trial.problems) or 'as it should'}", flush=True)  # fmt: skip
                write_result(asked.out, record)
    print(render_table(trials))
    print(describe_commits(trials))
    if any(trial["problems"] for found in trials.values() for trial in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
