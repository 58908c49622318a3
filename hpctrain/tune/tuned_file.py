"""The file that `hpctrain run --config` takes: the user's settings and the tuned ones; pure."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpctrain.config import Config, as_tables
from hpctrain.tune.knobs import Knob
from hpctrain.tune.machine import describe_machine
from hpctrain.tune.verdict import Choice, Verdict

FIRST_WORDS = "# Made by `hpctrain tune`"
TUNING_WORDS = "# Work directory: "
WIDTH = 96
Tables = dict[str, dict[str, Any]]


def given_tables(config: Config) -> Tables:
    """Return the settings that differ from the defaults, section by section."""
    defaults = as_tables(Config())
    tables = {}
    for name, section in as_tables(config).items():
        own = {k: v for k, v in section.items() if v != defaults[name][k]}
        if own:
            tables[name] = own
    return tables


def with_settings(tables: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> Tables:
    """Return tables with settings (``section.key`` or ``section.table.KEY``) put in.

    >>> with_settings({"comm": {"bucket_mb": 4}}, {"launch.env.A": "1", "comm.bucket_mb": 9})
    {'comm': {'bucket_mb': 9}, 'launch': {'env': {'A': '1'}}}
    """
    made: Tables = {
        name: {k: dict(v) if isinstance(v, Mapping) else v for k, v in section.items()}
        for name, section in tables.items()
    }
    for key, value in settings.items():
        *path, last = key.split(".", 2)
        node: dict[str, Any] = made
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return made


def render_tables(tables: Mapping[str, Mapping[str, Any]], notes: Mapping[str, str] = {}) -> str:
    """Return tables as TOML.

    Args:
        notes: ``section.key`` → what stands as a comment above it.
    """
    import tomli_w

    blocks = []
    for name, section in tables.items():
        inner = {key: value for key, value in section.items() if isinstance(value, Mapping)}
        plain = {key: value for key, value in section.items() if key not in inner}
        for title, table in ((name, plain), *((f"{name}.{k}", v) for k, v in inner.items())):
            lines = [f"[{title}]"] if table else []
            for key, value in table.items():
                lines += _comment(notes.get(f"{title}.{key}", ""))
                lines.append(tomli_w.dumps({key: value}).rstrip())
            blocks += ["\n".join(lines)] if lines else []
    return "\n\n".join(blocks) + "\n" if blocks else ""


def render_tuned(
    base: Mapping[str, Mapping[str, Any]],
    knobs: Sequence[Knob],
    verdict: Verdict,
    machine: Mapping[str, str],
    np: int,
    again: str = "",
    tuning: str = "",
) -> str:
    """Return the whole file.

    Args:
        base: the user's own settings.
        machine: from :func:`hpctrain.tune.machine.probe_machine`.
        again: options that no file can hold, to be given to `hpctrain run` as well.
        tuning: the work directory, as :func:`name_tuning` names it.
    """
    by_name = {knob.name: knob for knob in knobs}
    tables = {name: dict(section) for name, section in base.items()}
    notes: dict[str, str] = {}
    for choice in verdict.choices:
        if choice.taken:
            settings = by_name[choice.knob].settings_of(choice.value)
            tables = with_settings(tables, settings)
            notes[next(iter(settings))] = _note(choice, by_name[choice.knob])
    head = [
        f"{FIRST_WORDS} on {machine['date'][:10]}, for hpctrain run --config.",
        f"Measured with {np} rank{'s' * (np > 1)} on " + describe_machine(machine)[0] + ".",
        f"Versions: {describe_machine(machine)[1]}.",
        "Elsewhere, and with another model or number of ranks, other settings may be faster.",
        _summary(verdict),
        *([f"Give hpctrain run as well: {again}"] if again else []),
    ]
    lines = [line for text in head for line in _comment(text.removeprefix("# "))]
    lines += [f"{TUNING_WORDS}{tuning}"] if tuning else []  # one line, however long: it is read
    return "\n".join(lines) + "\n\n" + render_tables(tables, notes)


def name_tuning(out: Path, folder: Path) -> str:
    """Return how a file names the work directory that it comes from: seen from where it lies."""
    return os.path.relpath(folder.resolve(), out.resolve().parent)


def foreign_file_problem(out: Path, folder: Path, *, force: bool) -> str | None:
    """Return why a file may not be written over; None where it may, or is not there.

    Args:
        folder: the work directory of the tuning that would write it.
        force: whether what another tuning found may go.
    """
    if not out.exists():
        return None
    try:
        lines = out.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    if not lines or not lines[0].startswith(FIRST_WORDS):
        return (
            f"--out: {out} is there and was not made by hpctrain tune; expected another "
            "name. Give it: --out FILE"
        )
    made_by = [line.removeprefix(TUNING_WORDS) for line in lines if line.startswith(TUNING_WORDS)]
    if force or made_by == [name_tuning(out, folder)]:
        return None
    return (
        f"--out: {out} is what another tuning found, got {''.join(made_by) or 'an unknown one'}; "
        "expected a new name. Give it: --out FILE; or write over it: --force"
    )


def _summary(verdict: Verdict) -> str:
    if not verdict.arm or verdict.gain is None:
        return "Nothing gained more than the spread of the measurements: the defaults stay."
    return f"All choices together: {verdict.gain} times as fast as without them."


def _note(choice: Choice, knob: Knob) -> str:
    gain = (
        f"{choice.gain} times as fast as {knob.base}" if choice.gain else "not measured by itself"
    )
    return f"{choice.knob}: {gain}. {choice.why.capitalize()}."


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")
