"""The same preflight once more, for some of its checks: what a fix gives as a command. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from hpctrain.launch.prepare import Asked
from hpctrain.preflight.verdict import Verdict

_AGAIN = re.compile(r"hpctrain preflight (--only [a-z0-9-]+)")


def preflight_words(asked: Asked) -> tuple[list[str], list[str]]:
    """Return what a preflight of the same hosts and training is told: options, and behind them
    the COMMAND.

    >>> options, command = preflight_words(Asked(host_list="a,b", np=4, program=("python", "t.py")))
    >>> " ".join(options + command)
    '--np 4 -H a,b -- python t.py'
    """
    values = (
        ("--np", asked.np), ("--hosts", asked.hosts_file), ("--cluster", asked.cluster),
        ("-H", asked.host_list), ("--exclude-file", asked.exclude_file),
        ("--spares", asked.spares), ("--config", asked.config_name),
        *(("--set", each) for each in asked.overrides),
        ("--runs-dir", asked.runs_dir if asked.runs_dir != Asked().runs_dir else None),
    )  # fmt: skip
    options = [word for name, value in values if value is not None for word in (name, str(value))]
    options += ["--oversubscribe"] if asked.oversubscribe else []
    return options, ["--", *asked.program] if asked.program else []


def with_same_words(verdicts: Sequence[Verdict], asked: Asked | None) -> list[Verdict]:
    """Return the verdicts; where a fix is to look again, it looks at the same hosts and training.

    Args:
        asked: the command line; None where it is not known.
    """
    if asked is None:
        return list(verdicts)
    options, command = (shlex.join(words) for words in preflight_words(asked))

    def complete(found: re.Match[str]) -> str:
        return " ".join(filter(None, ("hpctrain preflight", options, found[1], command)))

    return [replace(each, fix=_AGAIN.sub(complete, each.fix)) for each in verdicts]
