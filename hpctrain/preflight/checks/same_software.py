"""Is the software the same on all hosts? One line each for what must be, or had better be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import hpctrain
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.fleet import Fleet, differing, not_asked
from hpctrain.preflight.show import name_hosts
from hpctrain.preflight.software import SOFTWARE
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

NOTHING = ""


class Item(NamedTuple):
    """Something that is compared between hosts.

    Args:
        code: of its check.
        read: a probe's answer → what is compared; empty for nothing there.
        fix: what makes hosts alike.
        status: WARN where ranks on different hosts may differ in it.
        absent: what it is called where no host has any.
        here: what the launching machine has, where hosts must have just that.
    """

    code: str
    read: Callable[[Mapping[str, Any]], str]
    fix: str
    status: str = FAIL
    absent: str = "on no host"
    here: str = ""


def judge_item(item: Item, probe: str, fleet: Fleet) -> Iterator[Verdict]:
    """Compare one thing on all hosts: what most of them have is what the others should have."""
    values: dict[str, str] = {}
    for host, answer in fleet.answers.get(probe, {}).items():
        if answer.error:
            yield not_asked(item.code, host, answer.error)
        else:
            values[host] = item.read(answer.value)
    yield from _compare(item, values, fleet)


def judge_commit(item: Item, probe: str, fleet: Fleet) -> Iterator[Verdict]:
    """Compare commits and changes; where git says nothing of changes, the commit alone."""
    answers = fleet.answers_of(probe)
    blind = {host: each["git_problem"] for host, each in answers.items() if each["git_problem"]}
    values = {host: item.read(each) for host, each in answers.items() if host not in blind}
    for host, answer in fleet.answers.get(probe, {}).items():
        if answer.error:
            yield not_asked(item.code, host, answer.error)
        elif host in blind:
            what = "changes" if answers[host]["commit"] else "the commit"
            found = f"{what} not compared: {blind[host]}"
            yield Verdict(item.code, WARN, found, "git status there", hosts=(host,))
    alike = {answers[host]["commit"]: value for host, value in reversed(values.items())}
    for host in blind:
        if commit := answers[host]["commit"]:
            values[host] = alike.get(commit, item.read(answers[host]))
    yield from _compare(item, values, fleet)


def _compare(item: Item, values: Mapping[str, str], fleet: Fleet) -> Iterator[Verdict]:
    """Compare what each host has."""
    groups = differing(values)
    if not groups:
        return
    usual, *others = groups
    if item.here:
        usual, others = item.here, [value for value in groups if value != item.here]
    if not others:
        status = PASS if usual != NOTHING else SKIP
        yield Verdict(item.code, status, usual or item.absent, hosts=tuple(groups[usual]))
    for value in others:
        whose = "here" if item.here else f"on {name_hosts(groups[usual], len(fleet.hosts))}"
        expected = f"{usual or 'none'} as {whose}"
        status = WARN if _differs_little(item, value, usual) else item.status
        hosts = tuple(groups[value])
        yield Verdict(item.code, status, value or "none", item.fix, expected, hosts)


def _differs_little(item: Item, value: str, usual: str) -> bool:
    """Whether two Pythons differ in their last number alone, which packages do not notice."""
    return item.code == "same-python" and value.split(".")[:2] == usual.split(".")[:2]


def _package(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda machine: str(machine["packages"].get(name, {}).get("version") or NOTHING)


def _horovod(machine: Mapping[str, Any]) -> str:
    horovod = machine["packages"].get("horovod", {})
    operations = "+".join(horovod.get("operations", ()))
    return f"{horovod['version']} ({operations})" if "version" in horovod else NOTHING


def _mpi(machine: Mapping[str, Any]) -> str:
    mpi = machine["mpi"]
    return f"{mpi['flavour']} {mpi['version']}" if mpi else NOTHING


def _nccl(machine: Mapping[str, Any]) -> str:
    return ", ".join(nccl_versions(machine["packages"]))


def nccl_versions(packages: Mapping[str, Any]) -> list[str]:
    """Return the versions of NCCL in one process.

    Those of its libraries; and the one that torch was built with, where torch by itself loads
    no library and so has it inside.
    """
    nccl = packages.get("nccl", {})
    found = set(nccl.get("loaded", {}).values())
    if not packages.get("torch", {}).get("nccl_libraries"):
        found.add(nccl.get("torch"))
    return sorted(version for version in found if version)


def _commit(software: Mapping[str, Any]) -> str:
    changes = f" with changes {software['changes']}" if software["changes"] else ""
    return f"{software['commit'][:12]}{changes}" if software["commit"] else NOTHING


_ITEMS: tuple[tuple[str, Item], ...] = (
    ("machine", Item("same-python", lambda m: ".".join(map(str, m["python_version"])),
                     "install the same python3 there")),
    ("software", Item("same-hpctrain", lambda s: s["hpctrain"],
                      f"pip install hpctrain=={hpctrain.__version__} there",
                      here=hpctrain.__version__)),
    ("machine", Item("same-torch", _package("torch"), "pip install torch==VERSION there")),
    ("machine", Item("same-horovod", _horovod, "hpctrain install-horovod there")),
    ("machine", Item("same-mpi", _mpi, "install the same MPI there, or name one: launch.mpirun")),
    ("machine", Item("same-nccl", _nccl, "pip install the same torch and nvidia-nccl there",
                     absent="no host's torch has NCCL")),
    ("machine", Item("same-cuda",
                     lambda m: str(m["packages"].get("torch", {}).get("cuda") or NOTHING),
                     "pip install the same build of torch there",
                     absent="no host's torch is a CUDA build")),
    ("software", Item("same-driver", lambda s: s["driver"], "install the same NVIDIA driver there",
                      WARN, "no NVIDIA driver on any host")),
    ("software", Item("same-kernel", lambda s: s["kernel"], "update and restart that host", WARN)),
    ("software", Item("same-commit", _commit, "git pull there, or: hpctrain run --sync",
                      absent="the working directory is no git checkout")),
)  # fmt: skip


def make_checks(machine: Probe) -> tuple[Check, ...]:
    """Return a check for each thing that is compared.

    Args:
        machine: the probe of machine-wide facts.
    """
    probes = {"machine": machine, "software": SOFTWARE}

    def check(name: str, item: Item) -> Check:
        def judge(fleet: Fleet) -> Iterator[Verdict]:
            compare = judge_commit if item.code == "same-commit" else judge_item
            yield from compare(item, name, fleet)

        return Check(item.code, judge, (probes[name],), needs_hosts=True)

    return tuple(check(name, item) for name, item in _ITEMS)
