"""What a tuning rule is: a row of data, which a situation turns into a setting or nothing. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from hpctrain.launch.situation import Situation

Condition: TypeAlias = Callable[[Situation], str]
"""Returns the fact that holds, in words; "" where it does not."""

VARIABLE = "env:"
ADVICE = "advice:"
NOTE = "note"


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that a rule wants.

    Args:
        intent: one of `dialects.py`; ``env:NAME`` for a variable; ``advice:NAME`` for what only a
            person can do (done already where the variable NAME is set); ``note`` for a reason why
            nothing is set.
    """

    intent: str
    value: str
    rule: str
    fact: str
    source: str

    @property
    def is_advice(self) -> bool:
        return self.intent.startswith(ADVICE)

    @property
    def is_words_alone(self) -> bool:
        """Whether it sets nothing."""
        return self.is_advice or self.intent == NOTE


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of a product that a rule is for.

    Args:
        product: ``nccl``, ``aws-ofi-nccl`` or ``libfabric``, as in `HostFacts.versions`.
        since: the first one; None for all before `before`.
        before: the first one that it is not for any more; None for all later ones.
        on_any: one host with such a version is enough; else every host must have one.
    """

    product: str
    since: str | None = None
    before: str | None = None
    on_any: bool = False

    def find(self, situation: Situation) -> str:
        """Return the fact in words; "" where the version is another one, or unknown."""
        known = situation.known_hosts()
        found = [facts.versions[self.product] for facts in known if self.product in facts.versions]
        fitting = list(dict.fromkeys(each for each in found if self.contains(each)))
        if self.on_any and fitting:
            return f"{self.product} {', '.join(fitting)}"
        if fitting and len(fitting) == len(set(found)) and len(found) == len(situation.host_names):
            return f"{self.product} {', '.join(fitting)} on every host"
        return ""

    def contains(self, version: str) -> bool:
        """Return whether a version is in the range.

        >>> Versions("nccl", "2.28.3", "2.28.9").contains("2.28.3+cuda13.0")
        True
        >>> Versions("aws-ofi-nccl", before="1.6").contains("1.10.0-aws")
        False
        """
        number = parse_version(version)
        after = self.since is None or number >= parse_version(self.since)
        return (
            bool(number) and after and (self.before is None or number < parse_version(self.before))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table.

    Args:
        intent: as in :class:`Setting`.
        value: what is set, or how it follows from the situation.
        when: the fact that asks for it.
        reason: why, in a sentence.
        source: who says so.
        versions: each must hold as well.
    """

    intent: str
    value: str | Callable[[Situation], str] = ""
    when: Condition
    reason: str
    source: str
    versions: tuple[Versions, ...] = ()

    def apply(self, situation: Situation) -> Setting | None:
        """Return the setting that this row asks for here; None where its fact does not hold."""
        facts = [self.when(situation)]
        if facts[0]:
            facts += [versions.find(situation) for versions in self.versions]
        if not all(facts):
            return None
        value = self.value if isinstance(self.value, str) else self.value(situation)
        return Setting(self.intent, value, self.reason, ", ".join(facts), self.source)


def parse_version(text: str) -> tuple[int, ...]:
    """Return a version's leading numbers.

    >>> parse_version("1.7.3-aws"), parse_version("v2.30"), parse_version("master")
    ((1, 7, 3), (2, 30), ())
    """
    match = re.match(r"v?(\d+(?:\.\d+)*)", text)
    return tuple(map(int, match[1].split("."))) if match else ()
