"""What a person typed → everything that a tuning needs, as one value.

This is where files are read and this machine is asked. Nothing is written and no host is touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpctrain.config import Config
from hpctrain.errors import (
    ConfigError,
    HostfileError,
    HpctrainError,
    PlanError,
    did_you_mean,
    raise_all,
)
from hpctrain.facts import Facts
from hpctrain.hosts import Host
from hpctrain.launch.plan import LaunchPlan, plan_launch
from hpctrain.launch.prepare import Asked, Prepared, check_trainer, gather_facts, prepare_request
from hpctrain.tune.asked import TuneAsked
from hpctrain.tune.identity import as_before, commit_warning, differences, identity_of
from hpctrain.tune.knobs import Knob, LeftOut
from hpctrain.tune.machine import comparable_machine, probe_machine
from hpctrain.tune.plan import knob_names, plan_knobs
from hpctrain.tune.search import Limits
from hpctrain.tune.situation import find_tune_facts
from hpctrain.tune.store import read_asked
from hpctrain.tune.tuned_file import (
    foreign_file_problem,
    given_tables,
    render_tables,
    with_settings,
)

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smh])+|\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What is to be tuned, and how.

    Args:
        base: the user's settings that differ from the defaults, np and hosts among them.
        hosts: of ``-H``; None where `base` names a hostfile, and for this machine alone.
        again: options that no file can hold, for `hpctrain run` to be given as well.
        identity: what makes measurements of two processes comparable.
        known: whether the directory holds measurements of this tuning already.
    """

    asked: TuneAsked
    np: int
    base: Mapping[str, Mapping[str, Any]]
    trial_config: str
    hosts: tuple[Host, ...] | None
    knobs: tuple[Knob, ...]
    left_out: tuple[LeftOut, ...]
    limits: Limits
    machine: Mapping[str, str]
    again: str
    identity: Mapping[str, Any]
    known: bool
    warnings: tuple[str, ...] = field(default_factory=tuple)

    @property
    def values(self) -> dict[str, tuple[str, ...]]:
        """Each knob's values to try."""
        return {knob.name: tuple(value.label for value in knob.values) for knob in self.knobs}

    @property
    def not_chosen(self) -> frozenset[str]:
        """Knobs that are measured and not chosen."""
        return frozenset(k.name for k in self.knobs if k.lossy and not self.asked.allow_lossy)


def prepare_tuning(asked: TuneAsked, environ: Mapping[str, str]) -> Tuning:
    """Read and check everything, and plan what to try.

    Raises:
        PlanError: naming all that is wrong with the command line, configuration and hosts.
        BenchError: the work directory is another version's.
        ProbeError: this machine cannot be asked.
    """
    earlier = read_asked(asked.folder)
    if earlier is not None and not asked.names_a_job:
        asked = as_before(asked, earlier["asked"])
    prepared, facts, plan = _plan_run(asked, earlier, environ)
    config = replace(prepared.config, launch=replace(prepared.config.launch, np=plan.np))
    base = given_tables(config)
    machine = probe_machine(plan, facts)
    identity = identity_of(asked, base, comparable_machine(machine, plan, facts), machine["commit"])
    knobs, left_out = plan_knobs(
        find_tune_facts(config, plan, facts, prepared, environ), asked.only
    )
    errors = [
        f"--only: {each.name} does not apply here: {each.why}."
        for each in left_out
        if each.name in asked.only
    ]
    if not knobs and not errors:
        errors.append("nothing to tune here. See what applies, and why: hpctrain tune --dry-run")
    errors += differences(asked.folder, earlier, identity)
    raise_all(PlanError, errors)
    return Tuning(
        asked=asked,
        np=plan.np,
        base=base,
        trial_config=_trial_config(config, base),
        hosts=prepared.request.hosts if asked.host_list is not None else None,
        knobs=knobs,
        left_out=left_out,
        limits=Limits(parse_duration_s(asked.budget)),
        machine=machine,
        again=f"-H {asked.host_list}" if asked.host_list else "",
        identity=identity,
        known=earlier is not None,
        warnings=(*prepared.warnings, *plan.warnings, *commit_warning(earlier, identity)),
    )


def _plan_run(
    asked: TuneAsked, earlier: Mapping[str, Any] | None, environ: Mapping[str, str]
) -> tuple[Prepared, Facts, LaunchPlan]:
    """Plan the run that is to be tuned; all that is wrong is told at once."""
    errors = _check_words(asked)
    try:
        prepared = _prepare_run(asked, earlier, environ)
        facts = gather_facts(prepared, environ, probe=asked.probe)
        check_trainer(prepared.config, facts)
        plan = plan_launch(prepared.request, facts)
    except (ConfigError, HostfileError, PlanError) as wrong:
        raise PlanError(*errors, *wrong.messages) from wrong
    raise_all(PlanError, errors)
    return prepared, facts, plan


def parse_duration_s(text: str) -> float:
    """Return the seconds that ``90``, ``90s``, ``10m`` or ``1h30m`` mean.

    >>> parse_duration_s("10m"), parse_duration_s("1h30m"), parse_duration_s("45")
    (600.0, 5400.0, 45.0)

    Raises:
        ConfigError: it is no such text, or 0.
    """
    total_s = 0.0
    if _DURATION.fullmatch(text):
        for number, unit in re.findall(r"([\d.]+)([smh]?)", text):
            total_s += float(number) * _UNITS_S[unit or "s"]
    if total_s <= 0:
        raise ConfigError(
            f"--budget: no duration, got '{text}'; expected one such as 90s, 10m or 1h30m."
        )
    return total_s


def _check_words(asked: TuneAsked) -> list[str]:
    errors = []
    try:
        parse_duration_s(asked.budget)
    except HpctrainError as wrong:
        errors += wrong.messages
    names = knob_names()
    for word in asked.only:
        if word not in names:
            hint = did_you_mean(word, names)
            errors.append(f"--only: unknown knob, got '{word}'; expected some of "
                          f"{', '.join(names)}.{hint}")  # fmt: skip
    problem = foreign_file_problem(asked.out, asked.folder, force=asked.force)
    return [*errors, problem] if problem else errors


def _prepare_run(
    asked: TuneAsked, earlier: Mapping[str, Any] | None, environ: Mapping[str, str]
) -> Prepared:
    """Prepare a trial, an ordinary run. A tuning that goes on keeps the settings it began with."""
    if asked.cluster is not None:
        from hpctrain.clusters.from_outside import refuse_outside

        refuse_outside(asked.cluster, environ, "tune")
    began_with = asked.folder / "base.toml"
    keeps = earlier is not None and not asked.config_name and not asked.overrides
    return prepare_request(
        Asked(
            np=asked.np,
            hosts_file=asked.hosts_file,
            host_list=asked.host_list,
            cluster=asked.cluster,
            config_name=str(began_with) if keeps else asked.config_name,
            overrides=asked.overrides,
            name="trial",
            runs_dir=asked.folder / "runs",
            oversubscribe=asked.oversubscribe,
        ),
        environ,
    )


def _trial_config(config: Config, base: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a trial's configuration: its length and ranks are the trial's own.

    Ranks fill hosts in order, so spares stay free; a trial that went on without a host is none.
    """
    hosts = config.launch.hosts
    tables = with_settings(base, {"launch.hosts": str(Path(hosts).absolute())} if hosts else {})
    tables.get("train", {}).pop("tokens", None)
    for name in ("np", "spares", "min_np", "max_restarts"):
        tables.get("launch", {}).pop(name, None)
    return render_tables(tables)


def settings_of(knobs: Sequence[Knob], arm: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the settings that a candidate means."""
    by_name = {knob.name: knob for knob in knobs}
    return {k: v for name, label in arm for k, v in by_name[name].settings_of(label).items()}
