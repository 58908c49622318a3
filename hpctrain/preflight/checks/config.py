"""Is the configuration right, and does all of it have an effect?"""

from __future__ import annotations

from collections.abc import Iterator

from hpctrain.preflight.check import Check
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.judge_config import ConfigFacts
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

CODE = "config"


def judge_config(fleet: Fleet) -> Iterator[Verdict]:
    """Name every error of the configuration at once, and every setting without effect."""
    facts: ConfigFacts | None = fleet.facts.get(CODE)
    if facts is None:
        yield Verdict(CODE, SKIP, "none was named: --config, --set")
        return
    for message in facts.errors:
        yield Verdict(CODE, FAIL, message, "correct it; every setting: docs/configuration.md")
    for line in facts.ignored:
        yield Verdict(CODE, WARN, line, "leave it out, or change what overrules it")
    if not facts.errors and not facts.ignored:
        count = f"{facts.given} setting{'' if facts.given == 1 else 's'} given"
        found = f"{count}, each understood and with an effect" if facts.given else "all by default"
        yield Verdict(CODE, PASS, found)


CONFIG = Check(CODE, judge_config)
