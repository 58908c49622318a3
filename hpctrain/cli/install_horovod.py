"""`hpctrain install-horovod`: build Horovod for this environment's torch and MPI, install it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from hpctrain.errors import BuildError
from hpctrain.executor import Command, LocalExecutor, render_command
from hpctrain.horovod_build import BuildPlan, plan_horovod_build, run_horovod_build
from hpctrain.horovod_facts import probe_build_facts
from hpctrain.horovod_stamp import read_horovod_stamp
from hpctrain.launch.find_mpi import cache_folder, find_mpi

INSTALL_TIMEOUT_S = 300.0


@click.command(
    "install-horovod",
    epilog="""\b
Examples:
  hpctrain install-horovod                      build, or take the wheel from the cache
  hpctrain install-horovod --dry-run            show the commands and the changes to the source
  HPCTRAIN_MPIRUN=/opt/mpi/bin/mpirun hpctrain install-horovod --wheel-dir wheels
""",
)
@click.option("--force", is_flag=True, help="Build and install even where nothing has changed.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@click.option(
    "--wheel-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Put the wheel there in place of installing it.",
)
def command(force: bool, dry_run: bool, wheel_dir: Path | None) -> None:
    """Build Horovod for this environment's torch and MPI, and install it.

    Wheels are kept in ~/.cache/hpctrain/wheels, one for each combination of torch, Python, MPI
    and CUDA. HPCTRAIN_MPIRUN names another MPI than the one that `hpctrain preflight` shows.
    """
    executor = LocalExecutor()
    mpi = find_mpi(os.environ, executor)
    plan = plan_horovod_build(probe_build_facts(mpi, os.environ, executor))
    for reason in plan.reasons:
        click.echo(reason)
    if dry_run:
        _print_plan(plan)
        return
    stamp = read_horovod_stamp()
    if not (force or wheel_dir) and stamp and stamp.key == plan.key:
        click.echo("already installed")
        return
    wheel = run_horovod_build(plan, cache_folder(os.environ) / "wheels", click.echo, force=force)
    if wheel_dir:
        wheel_dir.mkdir(parents=True, exist_ok=True)
        click.echo(shutil.copy2(wheel, wheel_dir))
        return
    _install(wheel)
    click.echo(f"installed: Horovod {stamp_line(plan)}")


def stamp_line(plan: BuildPlan) -> str:
    """Return what was built in a few words."""
    stamp = plan.stamp
    mpi = f"{stamp.mpi_flavour} {stamp.mpi_version}"
    return f"{stamp.horovod}, {mpi}, {stamp.operations} operations"


def _print_plan(plan: BuildPlan) -> None:
    for change in plan.changes:
        click.echo(f"change {change.file}: {change.why}")
    click.echo(render_command(plan.download))
    click.echo(render_command(plan.build))
    click.echo(f"wheel cache key: {plan.key}")


def _install(wheel: Path) -> None:
    steps = {
        "pip could not install the wheel": (
            "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--force-reinstall", str(wheel),
        ),
        "the installed wheel does not load": ("-c", "import horovod.torch"),
    }  # fmt: skip
    for problem, arguments in steps.items():
        step = Command((sys.executable, *arguments))
        done = LocalExecutor().run(step, timeout_s=INSTALL_TIMEOUT_S)
        if not done.ok:
            raise BuildError(
                f"{wheel}: {problem}, got {done.last_words!r}; expected exit code 0. "
                "`hpctrain install-horovod --force` builds it again."
            )
