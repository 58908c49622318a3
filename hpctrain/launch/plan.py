"""Facts and a request in, a launch plan out. Nothing here touches a machine.

`plan_launch` answers: which command, with which environment and files, puts which rank on which
host, and why is each flag there? Same inputs, same plan, on any machine.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpctrain.errors import PlanError, raise_all
from hpctrain.executor import Command
from hpctrain.facts import Facts
from hpctrain.launch.channel import CHANNEL_VARIABLE, SECRET_VARIABLE
from hpctrain.launch.dialects import (
    DIALECTS,
    Dialect,
    flag_name_and_value,
    render_forward,
    render_setting,
    split_flags,
    users_own_variable,
)
from hpctrain.launch.environment import plan_forwarding, plan_path, unknown_variables
from hpctrain.launch.meeting import (
    ADDRESS_VARIABLE,
    MEETING_RULE,
    MEETING_SOURCE,
    PORT_VARIABLE,
    plan_meeting_address,
    plan_meeting_port,
)
from hpctrain.launch.network import plan_channel_address, plan_subnet
from hpctrain.launch.placement import Placement, plan_placement
from hpctrain.launch.rank_env import explain_rank_env
from hpctrain.launch.request import LaunchRequest
from hpctrain.launch.rule import ADVICE, NOTE, Setting
from hpctrain.launch.rules import plan_settings
from hpctrain.launch.situation import Situation
from hpctrain.launch.ssh_config import host_alias, render_ssh_config

ATTEMPT_VARIABLE = "HPCTRAIN_ATTEMPT"
ATTEMPT_NUMBER_VARIABLE = "HPCTRAIN_ATTEMPT_NUMBER"
OLD_FACTS_S = 3 * 86400.0
SHIM_MODULE = "hpctrain.launch.shim"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a flag or variable is there: `setting` as typed, from which fact, by which source."""

    setting: str
    value: str
    rule: str
    fact: str
    source: str


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """A launch as a value; `--dry-run` prints it and the supervisor runs it.

    When it runs, the variables of the launcher's own channel, empty here, get their values.
    """

    command: Command
    np: int
    placement: tuple[Placement, ...]
    program: tuple[str, ...]
    files: Mapping[str, str]
    reasons: tuple[Reason, ...]
    warnings: tuple[str, ...]
    mpi: str
    python: str
    channel_address: str
    ssh_options: tuple[str, ...]
    remote_hosts: tuple[str, ...]
    start_timeout_s: float
    grace_s: float
    meeting_port: int | None = None
    """The planned MASTER_PORT, for which a start takes the next one that is free."""
    saves_on_signal: bool = False
    save_timeout_s: float = 60.0
    hang_timeout_s: float | None = None

    @property
    def shim_words(self) -> int:
        """How many words at the end of the command are not mpirun's: shim and program."""
        argv = self.command.argv
        return len(self.program) + argv[::-1][len(self.program) :].index(self.python) + 1

    @property
    def rank_hosts(self) -> tuple[str, ...]:
        """The host of each rank."""
        return tuple(place.host for place in self.placement for _ in range(place.ranks))


def plan_launch(request: LaunchRequest, facts: Facts) -> LaunchPlan:
    """Plan a launch.

    Raises:
        PlanError: what was asked for does not fit: too few slots, an unusable subnet …
    """
    warnings = unknown_variables({**request.environ, **request.launch.env})
    placement = plan_placement(request, facts, warnings)
    names = tuple(place.host for place in placement)
    remote = tuple(name for name in names if not facts.is_launcher(name))
    _check_remote(request, facts, remote)
    subnet, subnet_fact = plan_subnet(request.launch.subnet, facts, remote, warnings)
    situation = Situation(
        facts=facts,
        host_names=names,
        local_ranks=tuple(place.ranks for place in placement),
        uses_gpus=not request.counts_cores and facts.any_gpus(names),
        subnet=subnet,
        subnet_fact=subnet_fact,
    )
    warnings += _warn_of_facts(situation)
    draft = _Draft(request, DIALECTS[facts.mpi_flavour])
    draft.add_np_and_hosts(placement, local_only=not remote)
    draft.add_rank_variables(sum(place.ranks for place in placement), subnet if remote else None)
    draft.add_path()
    channel_address = plan_channel_address(facts, remote, subnet)
    draft.add_meeting_point(
        plan_meeting_address(names[0], facts, subnet, channel_address, local_only=not remote)
    )
    draft.explain_transport(request.launch.require_transport)
    for setting in plan_settings(situation):
        draft.add(setting)
    warnings += draft.warnings
    draft.write_ssh_config(facts)
    if remote:
        draft.use_ssh_config()
        warnings += draft.add_forwarding()
    draft.add_what_ranks_decide(situation)
    shim = (request.python, *request.python_options, "-m", SHIM_MODULE)
    program = (*shim, "--", *request.program)
    mpirun = posixpath.join(posixpath.dirname(facts.mpirun), draft.dialect.program)
    return LaunchPlan(
        command=Command((mpirun, *draft.argv, *request.launch.mpirun_args, *program), draft.env),
        np=sum(place.ranks for place in placement),
        placement=placement,
        program=request.program,
        python=request.python,
        files=draft.files,
        reasons=tuple(draft.reasons),
        warnings=tuple(warnings),
        mpi=f"{draft.dialect.title} ({facts.mpi_version}, {facts.mpi_source})",
        channel_address=channel_address,
        ssh_options=draft.ssh_options,
        remote_hosts=tuple(host_alias(name) for name in remote),
        start_timeout_s=request.launch.start_timeout_s,
        grace_s=request.launch.grace_s,
        meeting_port=draft.meeting_port,
        saves_on_signal=request.saves_on_signal,
        save_timeout_s=request.launch.save_timeout_s,
        hang_timeout_s=request.launch.hang_timeout_s,
    )


def _warn_of_facts(situation: Situation) -> list[str]:
    """Say where the plan rests on what nobody asked, or asked long ago."""
    unknown = situation.unknown_hosts()
    warnings = []
    if unknown:
        names = ", ".join(unknown[:4]) + (" …" if len(unknown) > 4 else "")
        warnings.append(
            f"{names}: never asked what they are; planned as if without GPUs and RDMA. "
            "Ask them once: --probe"
        )
    old = [facts.age_s(situation.facts.now_s) for facts in situation.known_hosts()]
    if max(old, default=0.0) > OLD_FACTS_S:
        days = max(old) / 86400
        warnings.append(f"some hosts were asked {days:.0f} days ago. Ask them again: --probe")
    return warnings


def _check_remote(request: LaunchRequest, facts: Facts, remote: Sequence[str]) -> None:
    errors = []
    if remote and not facts.has_ssh:
        errors.append(
            f"ssh: none on PATH, got hosts on other machines ({', '.join(remote[:4])}); expected "
            "an ssh client. Install it: apt-get install openssh-client"
        )
    if remote and any(character.isspace() for character in request.run_path):
        errors.append(
            f"--runs-dir: mpirun splits ssh's options at spaces, got '{request.run_path}'; "
            "expected a path without them."
        )
    raise_all(PlanError, errors)


class _Draft:
    """The parts of a plan while they come together, each with its reason."""

    def __init__(self, request: LaunchRequest, dialect: Dialect) -> None:
        self.request = request
        self.dialect = dialect
        self.argv: list[str] = []
        self.env: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.reasons: list[Reason] = []
        self.warnings: list[str] = []
        self.ssh_options: tuple[str, ...] = ()
        self.meeting_port: int | None = None
        self.users_own = {**request.environ, **request.launch.env}

    def explain(self, setting: str, value: str, rule: str, fact: str, source: str) -> None:
        self.reasons.append(Reason(setting, value, rule, fact, source))

    def add_np_and_hosts(self, placement: Sequence[Placement], *, local_only: bool) -> None:
        np = sum(place.ranks for place in placement)
        slots = ", ".join(f"{place.host}:{place.slots}" for place in placement)
        asked = self.request.np is not None
        rule = "as asked" if asked else "all slots, where --np is not given"
        self.argv += [self.dialect.np, str(np)]
        self.explain(self.dialect.np, str(np), rule, f"slots {slots}", "mpirun(1)")
        if local_only and len(placement) == 1:
            words = [word.replace("{}", str(np)) for word in self.dialect.local_hosts]
            rule = "all ranks on this machine; slots are written, else cores are counted"
        else:
            path = f"{self.request.run_path}/hostfile"
            line = self.dialect.hostfile_line
            self.files[path] = "".join(
                line.format(name=host_alias(place.host), ranks=place.ranks) + "\n"
                for place in placement
            )
            words = [word.replace("{}", path) for word in self.dialect.hostfile]
            rule = "slots are exactly the ranks placed there, so that every MPI places them alike"
        self.argv += words
        placed = ", ".join(f"{place.host}:{place.ranks}" for place in placement)
        self.explain(words[0], " ".join(words[1:]), rule, placed, "mpirun(1)")

    def add_rank_variables(self, np: int, subnet: str | None) -> None:
        request = self.request
        ours = {
            "HPCTRAIN_SIZE": str(np),
            "HPCTRAIN_GRACE_S": f"{request.launch.grace_s:g}",
            "HPCTRAIN_CUT_OFF_S": f"{request.launch.cut_off_s:g}",
            CHANNEL_VARIABLE: "",
            SECRET_VARIABLE: "",
            ATTEMPT_VARIABLE: "",
            ATTEMPT_NUMBER_VARIABLE: "",
        }
        if subnet:
            ours["HPCTRAIN_SUBNET"] = subnet
        if request.launch.threads_per_rank:
            ours["HPCTRAIN_THREADS"] = str(request.launch.threads_per_rank)
        self.env |= {**request.launch.env, **request.rank_env, **ours}
        for name, value in request.launch.env.items():
            self.explain(name, value, "as asked", "launch.env", "configuration")
        names = ", ".join(name for name in self.env if name.startswith("HPCTRAIN_"))
        rule = "what the rank shim must know; the channel's address and secret come at the start"
        self.explain(names, "", rule, f"np {np}", "docs/architecture.md")

    def explain_transport(self, expected: str) -> None:
        if expected != "none":
            rule = "proved before the ranks start: a short exchange of the same ranks, whose own "
            rule += "report is read; nothing starts on another transport"
            self.explain("launch.require_transport", expected, rule, "as asked", "docs/env.md")

    def add_path(self) -> None:
        setting = plan_path(self.users_own, self.request.python)
        if setting is not None:
            self.env["PATH"] = setting.value
            shown = setting.value.partition(":")[0] + ":…"
            self.explain("PATH", shown, setting.rule, setting.fact, setting.source)

    def add_meeting_point(self, address: str) -> None:
        # Runs of one name in two folders may start at the same moment, and are not to meet.
        run_path = self.request.rank_env.get("HPCTRAIN_RUN_PATH", self.request.run_path)
        port = plan_meeting_port(run_path)
        for name, value in ((ADDRESS_VARIABLE, address), (PORT_VARIABLE, str(port))):
            if name not in self.users_own:
                self.env[name] = value
                self.explain(name, value, MEETING_RULE, "rank 0's host", MEETING_SOURCE)
        if PORT_VARIABLE not in self.users_own:
            self.meeting_port = port

    def add(self, setting: Setting) -> None:
        """Add a setting in this MPI's words, but for what the user has set already."""
        if setting.is_words_alone:
            self._add_words(setting)
            return
        wording = render_setting(self.dialect, setting)
        if wording is None:
            rule = f"not set: {self.dialect.title} has no such switch. Meant was: {setting.rule}"
            self.explain(f"({setting.intent})", "", rule, setting.fact, setting.source)
            return
        for flag in split_flags(wording.argv):
            own = users_own_variable(flag, self.users_own)
            if own:
                self._leave_alone(own, setting)
            else:
                self.argv += flag
                name, value = flag_name_and_value(flag)
                self.explain(name, value, setting.rule, setting.fact, setting.source)
        for name, value in wording.env.items():
            if name in self.users_own:
                self._leave_alone(name, setting)
            else:
                self.env[name] = value
                self.explain(name, value, setting.rule, setting.fact, setting.source)

    def _add_words(self, setting: Setting) -> None:
        """Keep what a rule has to say that sets nothing; an advice that was followed is silent."""
        name = setting.intent.removeprefix(ADVICE)
        if setting.is_advice and name in self.users_own:
            self._leave_alone(name, setting)
            return
        self.explain(f"({'advice' if setting.is_advice else NOTE})", setting.value,
                     setting.rule, setting.fact, setting.source)  # fmt: skip
        if setting.is_advice:
            todo = f": {setting.value}" if setting.value else ""
            self.warnings.append(f"{setting.fact}: {setting.rule}{todo} ({setting.source}).")

    def _leave_alone(self, name: str, setting: Setting) -> None:
        rule = f"yours, left alone. Otherwise: {setting.rule}"
        self.explain(name, self.users_own[name], rule, "set in this shell", setting.source)

    def write_ssh_config(self, facts: Facts) -> None:
        """Cover every host that is known: one that takes no ranks now may do so after a failure."""
        known = (*(self.request.hosts or ()), *self.request.spares)
        hosts = [host for host in known if not facts.is_launcher(host.name)]
        if hosts:
            path = f"{self.request.run_path}/ssh_config"
            self.files[path] = render_ssh_config(hosts, self.request.ssh_configs)
            self.ssh_options = ("-F", path)

    def use_ssh_config(self) -> None:
        """Have mpirun start ranks by it."""
        rule = (
            "hosts' users and ports, the ssh_config beside the hostfile, then your own; "
            "never a question, and a dead link is noticed in 10 s"
        )
        beside = ", ".join(self.request.ssh_configs) or "no ssh_config beside the hostfile"
        self.add(Setting("ssh_config", self.ssh_options[1], rule, beside, "ssh_config(5)"))

    def add_forwarding(self) -> list[str]:
        names, warnings = plan_forwarding(
            self.request.environ, self.env, self.request.launch.forward
        )
        self.argv += render_forward(self.dialect, names)
        rule = "ranks on other hosts get these by name; a value never stands in a command line"
        self.explain(self.dialect.forward[0], ", ".join(names), rule,
                     f"{len(names)} variables set here", "docs/run.md")  # fmt: skip
        return warnings

    def add_what_ranks_decide(self, situation: Situation) -> None:
        for reason in explain_rank_env(
            situation, self.users_own, self.request.launch, planned=self.env
        ):
            self.reasons.append(Reason(*reason))
