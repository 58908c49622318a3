"""A host's sources and a launch plan → each variable in force there, with who set it. Pure.

What counts, the strongest first: mpirun's flags; what hpctrain's plan sets (rules, launch.env); the
launching shell's, as far as ranks get it; the host's own login environment; what the rank shim
decides where nobody else has; the libraries' configuration files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hpctrain.launch.plan import LaunchPlan, Reason
from hpctrain.variables.files import (
    SYSTEM_NCCL,
    config_files,
    is_read_by_libraries,
    parse_mca_params,
    parse_nccl_conf,
)
from hpctrain.variables.host import HostVariables

# Variables that the launcher's host alone reads: mpirun's, not the ranks'.
FLAG_PREFIXES = {"--mca": "OMPI_MCA_", "--prtemca": "PRTE_MCA_", "--pmixmca": "PMIX_MCA_"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One variable in force on a host.

    Args:
        origin: who set it, in words: ``rule``, ``launch.env``, ``shell``, a file's path …
        rule: why, where hpctrain set it, or would have.
        source: who says so, or who says that the file is read.
        hides: what it hides, as ``path: value``.
        flag: how it stands in mpirun's command line, where it does.
    """

    name: str
    value: str
    origin: str
    rule: str = ""
    source: str = ""
    hides: tuple[str, ...] = ()
    flag: str = ""


def explain_variables(
    host: HostVariables,
    plan: LaunchPlan,
    shell: Mapping[str, str],
    launch_env: Mapping[str, str],
    mpi_prefix: str,
) -> tuple[Variable, ...]:
    """Return a host's variables, by name.

    Args:
        shell: the launching shell's variables, as far as ranks on this host get them.
        launch_env: the configuration's ``launch.env``.
    """
    reasons = {name: r for r in plan.reasons for name in r.setting.split(", ")}
    layers: list[Variable] = [*_flags(plan, reasons)]
    layers += _planned(plan.command.env, launch_env, reasons)
    layers += [_from_shell(name, value, host, reasons) for name, value in shell.items()
               if is_read_by_libraries(name)]  # fmt: skip
    layers += [_from_login(name, value, host) for name, value in host.environ.items()]
    known = {variable.name for variable in layers}
    layers += _from_shim(plan, reasons, known)
    in_env = {v.name: v.value for v in reversed(layers)}
    layers += _from_files(host, in_env, mpi_prefix)
    return tuple(sorted(_strongest(layers), key=lambda variable: variable.name))


def _flags(plan: LaunchPlan, reasons: Mapping[str, Reason]) -> Iterable[Variable]:
    argv = plan.command.argv[: len(plan.command.argv) - plan.shim_words]
    for place, word in enumerate(argv):
        prefix = FLAG_PREFIXES.get(word)
        if prefix and place + 2 < len(argv):
            name, value = argv[place + 1], argv[place + 2]
            flag = f"{word} {name}"
            reason = reasons.get(flag)
            yield Variable(
                name=prefix + name, value=value, flag=flag,
                origin="hpctrain's rule" if reason else "launch.mpirun_args",
                rule=reason.rule if reason else "", source=reason.source if reason else "",
            )  # fmt: skip


def _planned(
    env: Mapping[str, str], launch_env: Mapping[str, str], reasons: Mapping[str, Reason]
) -> Iterable[Variable]:
    for name, value in env.items():
        if not is_read_by_libraries(name):
            continue
        reason = reasons.get(name)
        yield Variable(
            name=name, value=value,
            origin="launch.env" if name in launch_env else "hpctrain's rule",
            rule=reason.rule if reason else "", source=reason.source if reason else "",
        )  # fmt: skip


def _from_shell(
    name: str, value: str, host: HostVariables, reasons: Mapping[str, Reason]
) -> Variable:
    reason = reasons.get(name)
    file = _assigning(name, value, host.profiles)
    return Variable(
        name=name, value=value, origin=f"shell ({file})" if file else "shell",
        rule=reason.rule if reason else "", source=reason.source if reason else "",
    )  # fmt: skip


def _from_login(name: str, value: str, host: HostVariables) -> Variable:
    if file := _assigning(name, value, host.profiles):
        return Variable(name=name, value=value, origin=file)
    is_image = host.first_process.get(name) == value
    return Variable(
        name=name, value=value, origin="image (process 1 has it)" if is_image else "login there"
    )


def _from_shim(
    plan: LaunchPlan, reasons: Mapping[str, Reason], known: set[str]
) -> Iterable[Variable]:
    for name, reason in reasons.items():
        is_variable = is_read_by_libraries(name) and name not in plan.command.env
        if is_variable and name not in known and reason.rule.startswith("decided on each host"):
            yield Variable(
                name=name, value=f"({reason.value})", origin="rank shim", rule=reason.rule,
                source=reason.source,
            )  # fmt: skip


def _from_files(
    host: HostVariables, environ: Mapping[str, str], mpi_prefix: str
) -> Iterable[Variable]:
    for file in config_files(environ):
        path = file.path.replace("{mpi}", mpi_prefix)
        path = host.home + path[1:] if path.startswith("~") else path
        text = host.config.get(path)
        if text is None:
            continue
        is_nccl = file.source == SYSTEM_NCCL.source
        found = parse_nccl_conf(text) if is_nccl else parse_mca_params(text, file.prefix)
        for name, value in found.items():
            yield Variable(name=name, value=value, origin=path, source=file.source)


def _strongest(layers: Sequence[Variable]) -> list[Variable]:
    """Return each name's first; it says what it hides."""
    from dataclasses import replace

    found: dict[str, Variable] = {}
    for variable in layers:
        first = found.get(variable.name)
        if first is None:
            found[variable.name] = variable
        elif first.value != variable.value:
            hidden = f"{variable.origin}: {variable.value}"
            found[variable.name] = replace(first, hides=(*first.hides, hidden))
    return list(found.values())


def _assigning(name: str, value: str, profiles: Mapping[str, Mapping[str, str]]) -> str:
    """Return the start-up file that assigns this very value; "" where none does."""
    return next((path for path, found in profiles.items() if found.get(name) == value), "")
