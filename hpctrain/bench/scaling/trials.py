"""The trials of a measurement, as values; pure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpctrain.bench.scaling.cases import Case
from hpctrain.bench.scaling.request import RUNS, Bench
from hpctrain.bench.trial import Trial
from hpctrain.hosts import Host

CONFIG_FILE = "config.toml"
CALIBRATION_STEPS = 4


def plan_measured_trial(bench: Bench, case: Case, repeat: int) -> Trial:
    """Return the trial of a case's repeat."""
    return _plan(bench, case, f"{case.key}-{repeat + 1}", ())


def plan_calibration_trial(bench: Bench, case: Case) -> Trial:
    """Return a short trial at a case's size, whose steps count for nothing."""
    short = () if bench.program else (f"train.steps={CALIBRATION_STEPS}",)
    return _plan(bench, case, f"calibration-{case.placement}", short)


def calibration_cases(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """Return the cases that tell how long all of them take: the smallest and the largest."""
    low, high = min(cases, key=lambda c: c.np), max(cases, key=lambda c: (c.np, c.nodes))
    return (low,) if low.placement == high.placement else (low, high)


def case_hosts(bench: Bench, case: Case) -> tuple[Host, ...] | None:
    """Return a case's hosts with its slots, and with user, port and limit of their own."""
    if case.hosts is None:
        return None
    return tuple(
        replace(
            bench.hosts[name],
            slots=slots,
            max_slots=bench.hosts[name].max_slots if needs_sharing(case) else None,
        )
        for name, slots in case.hosts
    )


def needs_sharing(case: Case) -> bool:
    """Return whether ranks share the slots of a case's hosts."""
    return case.hosts is not None and case.np > sum(slots for _, slots in case.hosts)


def _plan(bench: Bench, case: Case, name: str, more: tuple[str, ...]) -> Trial:
    folder: Path = bench.folder
    return Trial(
        name=name,
        runs_dir=folder / RUNS,
        np=case.np,
        program=bench.program,
        hosts=case_hosts(bench, case),
        ssh_config=bench.ssh_config if case.hosts is not None else None,
        config_name=str(folder / CONFIG_FILE),
        overrides=(*case.overrides, *more),
        oversubscribe=bench.oversubscribe,
        timeout_s=bench.timeout_s,
    )
