"""Carry out a launch plan: make the run directory, run the attempt, clean up, say how it ended."""

from __future__ import annotations

import platform
import resource
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpctrain import __version__
from hpctrain.config import dump_toml
from hpctrain.errors import LaunchError
from hpctrain.launch.console import RunConsole
from hpctrain.launch.plan import LaunchPlan
from hpctrain.launch.prepare import Prepared
from hpctrain.launch.ssh_config import host_alias
from hpctrain.launch.supervisor import Outcome, Supervisor
from hpctrain.launch.sweep import diagnose_hosts, run_sweep
from hpctrain.rundir import RunDirectory


def start_run(plan: LaunchPlan, prepared: Prepared) -> int:
    """Run the plan; return the exit code.

    Raises:
        RunDirectoryError: the run's name is taken or in use.
        PlanError: mpirun cannot be started.
        LaunchError: the launcher itself cannot go on, e.g. on a full disk.
    """
    _allow_open_files(plan.np)
    run = RunDirectory.create(prepared.run_path, resume=prepared.resume)
    try:
        attempt = run.next_attempt()
        write_plan_files(plan, prepared, run)
        console = RunConsole(plan, run)
        for warning in (*prepared.warnings, *plan.warnings):
            console.warn(warning)
        console.header(attempt)
        run.event("attempt", attempt=attempt, np=plan.np, hosts=[p.host for p in plan.placement])
        supervisor = Supervisor(plan, run, console)
        try:
            outcome = supervisor.run()
        except OSError as problem:
            run_sweep(supervisor.attempt_id, plan.remote_hosts, plan.ssh_options)
            raise LaunchError(
                f"{run.path}: the launcher cannot go on: {problem}. All ranks were ended."
            ) from problem
        run.event(
            "run_finished",
            attempt=attempt,
            state=outcome.state,
            exit_code=outcome.exit_code,
            duration_s=round(outcome.duration_s, 3),
            failure=asdict(outcome.failure) if outcome.failure else None,
        )
        unheard = outcome.state == "failed" and bool(outcome.silent_ranks)
        console.finish(outcome, _diagnose(plan, outcome) if unheard else [])
        for line in _sweep(plan, outcome):
            console.warn(line)
        return outcome.exit_code
    finally:
        run.close()


def write_plan_files(plan: LaunchPlan, prepared: Prepared, run: RunDirectory) -> None:
    """Write what the attempt is started from."""
    import json

    run.write_text("run.toml", dump_toml(prepared.config))
    run.write_text("plan.json", json.dumps(plan_as_json(plan), indent=2) + "\n")
    for path, text in plan.files.items():
        run.write_text(Path(path).name, text)


def plan_as_json(plan: LaunchPlan) -> dict[str, Any]:
    """Return the plan as JSON-ready values, with versions and the git commit it ran from."""
    import shlex

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


def _diagnose(plan: LaunchPlan, outcome: Outcome) -> list[str]:
    silent = {host_alias(plan.rank_hosts[rank]) for rank in outcome.silent_ranks}
    hosts = [host for host in plan.remote_hosts if host in silent]
    return diagnose_hosts(hosts, plan.ssh_options, plan.python)


def _sweep(plan: LaunchPlan, outcome: Outcome) -> list[str]:
    if not outcome.needs_sweep:
        return []
    return run_sweep(outcome.attempt_id, plan.remote_hosts, plan.ssh_options)


def git_commit() -> str | None:
    """Read the commit of this working directory; without git, which a launch must not wait for."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        try:
            if (folder / ".git").exists():
                return read_git_commit(folder / ".git")
        except OSError:
            return None
    return None


def read_git_commit(git: Path) -> str | None:
    """Return the commit that HEAD means, or None.

    Args:
        git: the ``.git`` of a checkout; a file, in a worktree or submodule, names the folder.

    Raises:
        OSError: it cannot be read.
    """
    if git.is_file():
        git = git.parent / git.read_text().strip().removeprefix("gitdir: ")
    common = git / "commondir"
    shared = git / common.read_text().strip() if common.is_file() else git
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head
    name = head.removeprefix("ref: ")
    for folder in (git, shared):
        if (folder / name).is_file():
            return (folder / name).read_text().strip()
    packed = shared / "packed-refs"
    lines = packed.read_text().splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)


def _allow_open_files(np: int) -> None:
    """A connection and two files a rank: the usual limit of 1024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 3 * np + 128
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
