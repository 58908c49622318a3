"""What an attempt is started from, as files of the run's directory."""

from __future__ import annotations

import json
import platform
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpctrain import __version__
from hpctrain.config import dump_toml
from hpctrain.launch.git_commit import git_commit
from hpctrain.launch.plan import LaunchPlan
from hpctrain.launch.prepare import Prepared
from hpctrain.rundir import RunDirectory


def write_plan_files(plan: LaunchPlan, prepared: Prepared, run: RunDirectory) -> None:
    """Write what the attempt is started from.

    Raises:
        OSError: it cannot be written.
    """
    run.write_text("run.toml", dump_toml(prepared.config))
    run.write_text("plan.json", json.dumps(plan_as_json(plan), indent=2) + "\n")
    for path, text in plan.files.items():
        run.write_text(Path(path).name, text)


def plan_as_json(plan: LaunchPlan) -> dict[str, Any]:
    """Return the plan as JSON-ready values, with versions and the git commit it ran from."""
    return {
        "schema": 1,
        "argv": list(plan.command.argv),
        "env": dict(plan.command.env),
        "np": plan.np,
        "program": shlex.join(plan.program),
        "placement": [asdict(place) for place in plan.placement],
        "files": dict(plan.files),
        "reasons": [asdict(reason) for reason in plan.reasons],
        "warnings": list(plan.warnings),
        "mpi": plan.mpi,
        "versions": {"hpctrain": __version__, "python": platform.python_version()},
        "git_commit": git_commit(),
    }
