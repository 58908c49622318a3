"""What all hosts answered, as one value that checks judge. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, Verdict


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe returned on a host, or why it returned nothing."""

    value: Any = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The hosts of a run that has not begun.

    Args:
        tasks: host → what it was asked, for every host of the run.
        answers: probe → host → answer; a host that could not be asked stands in none.
        unreachable: host → why it could not be asked.
        local: hosts that are the launching machine itself.
        facts: what the launching machine knows besides, by the check's code: what a run needs by
            its estimate, what was found on the way to each host.
    """

    tasks: Mapping[str, NodeTask]
    answers: Mapping[str, Mapping[str, Answer]] = field(default_factory=dict)
    unreachable: Mapping[str, str] = field(default_factory=dict)
    local: frozenset[str] = frozenset()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(self.tasks)

    @property
    def np(self) -> int:
        """Ranks in all; those that spare hosts would take are not counted twice."""
        return sum(task.ranks for task in self.tasks.values() if not task.is_spare)

    def answers_of(self, probe: str) -> dict[str, Any]:
        """Return host → value, of the hosts where the probe returned one."""
        answers = self.answers.get(probe, {})
        return {host: answer.value for host, answer in answers.items() if not answer.error}


def on_each_host(
    code: str, probe: str, judge: Callable[[NodeTask, Any], Verdict | None]
) -> Callable[[Fleet], Iterator[Verdict]]:
    """Return a check that judges every host's answer by itself.

    A host whose probe failed gets a FAIL that says so: what could not be looked at is not passed.

    Args:
        judge: (task, value) → the verdict, whose `hosts` is filled in; None for nothing to say.
    """

    def check(fleet: Fleet) -> Iterator[Verdict]:
        for host, answer in fleet.answers.get(probe, {}).items():
            if answer.error:
                yield not_asked(code, host, answer.error)
                continue
            verdict = judge(fleet.tasks[host], answer.value)
            if verdict is not None:
                yield replace(verdict, hosts=(host,))

    return check


def not_asked(code: str, host: str, error: str) -> Verdict:
    """Return the verdict on a host that did not answer a check's question."""
    fix = f"hpctrain preflight --only {code}"  # with what else was typed: again.py
    return Verdict(code, FAIL, f"could not be looked at: {error}", fix, "", (host,))


def differing(values: Mapping[str, Any]) -> dict[Any, list[str]]:
    """Return value → the hosts that have it, the most common first.

    >>> differing({"n1": "a", "n2": "b", "n3": "b"})
    {'b': ['n2', 'n3'], 'a': ['n1']}
    """
    groups: dict[Any, list[str]] = {}
    for host, value in values.items():
        groups.setdefault(value, []).append(host)
    return dict(sorted(groups.items(), key=lambda entry: -len(entry[1])))
