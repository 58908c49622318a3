"""TOML text and ``--set`` strings → :class:`Config`, with every error at once and in place."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

from hpctrain.config.schema import Config
from hpctrain.errors import ConfigError, did_you_mean, raise_all

# Of these only one is given: one by --set takes the place of the other in a file.
_RIVALS = {
    "train.global_batch_size": "batch_size_per_rank",
    "train.batch_size_per_rank": "global_batch_size",
}


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file and apply ``--set`` overrides.

    Args:
        path: a TOML file; None for the defaults alone.
        overrides: ``section.key=value``, the value as TOML or, failing that, as a plain string.

    Raises:
        ConfigError: naming every unknown key and every value that is not allowed.
    """
    if path is None:
        return parse_config("", "configuration", overrides)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}. Check --config.") from problem
    return parse_config(text, str(path), overrides)


def parse_config(text: str, source: str = "configuration", overrides: Sequence[str] = ()) -> Config:
    """Return the configuration that TOML `text` and `overrides` describe.

    >>> parse_config("[train]\\nsteps = 7", overrides=["optim.lr=0.01"]).optim.lr
    0.01

    Raises:
        ConfigError: naming every unknown key and every value that is not allowed.
    """
    if not text and not overrides:
        return Config()
    inspected = inspect_config(text, source, overrides)
    raise_all(ConfigError, inspected.errors)
    return inspected.config


class Inspected(NamedTuple):
    """A configuration with what is wrong in it.

    Args:
        config: with defaults in place of what is wrong.
        errors: a message for each unknown key and each value that is not allowed.
        given: the settings that were given, as ``section.key``.
    """

    config: Config
    errors: tuple[str, ...]
    given: tuple[str, ...]


def inspect_config(
    text: str, source: str = "configuration", overrides: Sequence[str] = ()
) -> Inspected:
    """Return what TOML `text` and `overrides` describe, as far as it can be understood.

    Raises:
        ConfigError: the text is not TOML at all.
    """
    try:
        table = _load_toml(text)
    except ValueError as problem:
        raise ConfigError(f"{source}: not valid TOML: {problem}.") from problem
    origins: dict[str, str] = {}
    errors: list[str] = []
    for override in overrides:
        _apply_override(table, override, origins, errors)

    def where(key: str) -> str:
        inside = (origin for name, origin in origins.items() if name.startswith(f"{key}."))
        known = key in _type_hints(Config)
        return origins.get(key) or (not known and next(inside, None)) or f"{source}: {key}"

    config = _convert_table(Config, table, "", where, errors)
    given = [f"{s}.{key}" for s, item in table.items() if isinstance(item, Mapping) for key in item]
    return Inspected(config, tuple(errors), tuple(given))


def dump_toml(config: Config) -> str:
    """Return the configuration as TOML that :func:`parse_config` reads back as the same value.

    TOML has no null: settings that are not given stand as comments.
    """
    blocks = []
    for name, section in as_tables(config).items():
        lines = [f"[{name}]"]
        tables = []
        for key, value in section.items():
            if isinstance(value, dict):
                entries = [f"{_toml_value(k)} = {_toml_value(v)}" for k, v in value.items()]
                tables.append("\n".join([f"[{name}.{key}]", *entries]))
            else:
                known = value is not None
                lines.append(f"{key} = {_toml_value(value)}" if known else f"# {key} is not set")
        blocks += ["\n".join(lines), *tables]
    return "\n\n".join(blocks) + "\n"


def as_tables(config: Config) -> dict[str, dict[str, Any]]:
    """Return the configuration as plain JSON-ready dictionaries, section by section."""
    tables = {}
    for section in dataclasses.fields(config):
        value = getattr(config, section.name)
        tables[section.name] = {
            f.name: dict(item) if isinstance(item := getattr(value, f.name), Mapping)
            else list(item) if isinstance(item, tuple) else item
            for f in dataclasses.fields(value)
        }  # fmt: skip
    return tables


def config_from_tables(tables: Mapping[str, Any]) -> Config:
    """Return the configuration that :func:`as_tables` described, validated again.

    Raises:
        ConfigError: as for :func:`parse_config`.
    """
    errors: list[str] = []
    config = _convert_table(Config, tables, "", lambda key: f"configuration: {key}", errors)
    raise_all(ConfigError, errors)
    return config


def all_keys() -> list[str]:
    """Return every setting as ``section.key``, in the order of the schema."""
    sections = _type_hints(Config)
    return [
        f"{section}.{item.name}"
        for section in sections
        for item in dataclasses.fields(sections[section])
    ]


def _type_hints(model: type[Any]) -> dict[str, Any]:
    from hpctrain.config import constraints

    return get_type_hints(model, localns=vars(constraints), include_extras=True)


def _load_toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    return tomllib.loads(text)


def _toml_value(value: Any) -> str:
    """Write a value: a JSON string, number, boolean or array of them is TOML as well."""
    # TOML wants the DEL character escaped, JSON does not.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def choices_of(key: str) -> list[str]:
    """Return the words that a setting (``section.key``) may have; [] where it takes others.

    >>> "horovod" in choices_of("comm.backend"), choices_of("train.steps")
    (True, [])
    """
    section, _, name = key.partition(".")
    model = _type_hints(Config).get(section)
    hint = _type_hints(model).get(name) if model else None
    return [choice for choice in get_args(hint) if isinstance(choice, str)]


def _convert_table(model: type[Any], table: Any, prefix: str, where: Any, errors: list[str]) -> Any:
    """Convert key by key, so that one wrong value does not hide the next."""
    if not isinstance(table, Mapping):
        errors.append(f"{where(prefix.rstrip('.'))}: should be a table, got {table!r}.")
        return model()
    import msgspec

    hints = _type_hints(model)
    values = {}
    for key, item in table.items():
        name = f"{prefix}{key}"
        if key not in hints:
            hint = did_you_mean(key, hints)
            errors.append(f"{where(name)}: unknown key; expected one of {', '.join(hints)}.{hint}")
        elif dataclasses.is_dataclass(hints[key]):
            values[key] = _convert_table(hints[key], item, f"{name}.", where, errors)
        else:
            try:
                values[key] = msgspec.convert(item, hints[key])
            except msgspec.ValidationError as problem:
                errors.append(f"{where(name)}: {_reason(hints[key], item, str(problem))}")
    made = model(**values)
    problems = made.problems() if hasattr(made, "problems") else ()
    errors += [f"{where(prefix.rstrip('.'))}: {problem}." for problem in problems]
    return made


def _reason(hint: Any, item: Any, message: str) -> str:
    choices = [arg for arg in get_args(hint) if isinstance(arg, str)]
    if choices:
        suggestion = did_you_mean(str(item), choices)
        return f"unknown value, got {item!r}; expected one of {', '.join(choices)}.{suggestion}"
    message = message.replace("`", "").split(", got")[0].split(" - at")[0]
    return f"wrong value, got {item!r}; {message[0].lower()}{message[1:]}."


def _apply_override(
    table: dict[str, Any], override: str, origins: dict[str, str], errors: list[str]
) -> None:
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or len(path) < 2 or not all(path):
        errors.append(
            f"--set {override}: not an assignment; expected section.key=value, "
            "e.g. train.steps=100."
        )
        return
    node = table
    for part in path[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            errors.append(f"--set {override}: '{part}' is a value, not a table.")
            return
    node[path[-1]] = _parse_value(text.strip())
    rival = _RIVALS.get(".".join(path))
    if rival is not None and f"{path[0]}.{rival}" not in origins:
        node.pop(rival, None)  # a setting of the file's, which this one replaces
    origins[".".join(path)] = f"--set {override}"


def _parse_value(text: str) -> Any:
    try:
        return _load_toml(f"value = {text}")["value"]
    except ValueError:
        return text
