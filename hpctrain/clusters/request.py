"""What a person typed → a :class:`ClusterRequest`: file, then --set, then flags. Pure but for the
reading of the file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpctrain.clusters.cluster_dir import check_cluster_name
from hpctrain.clusters.provider import PROVIDERS, ClusterRequest
from hpctrain.errors import ConfigError, did_you_mean, raise_all

DEFAULT_PROVIDER = "lab"
GENERAL = ("provider", "name", "nodes")


def read_request(
    *,
    provider: str | None,
    name: str | None,
    nodes: int | None,
    config: Path | None,
    overrides: Sequence[str],
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
) -> ClusterRequest:
    """Return what is asked for.

    Args:
        config: a TOML file with provider, name, nodes, and options of the provider.
        overrides: ``key=value``, the value as TOML or, failing that, as a plain string.
        flags: options that flags of the command line give; they count most.

    Raises:
        ConfigError: the file cannot be read, or something is no setting at all.
    """
    table = _read_toml(config) if config else {}
    errors: list[str] = []
    for override in overrides:
        _apply(table, override, errors)
    _merge(table, flags)
    chosen = provider or table.pop("provider", None) or DEFAULT_PROVIDER
    if chosen not in PROVIDERS:
        known = ", ".join(PROVIDERS)
        hint = did_you_mean(str(chosen), PROVIDERS)
        errors.append(f"provider: unknown, got '{chosen}'; expected one of {known}.{hint}")
    count = nodes if nodes is not None else table.get("nodes")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        errors.append(f"nodes: no count, got '{count}'; expected a whole number ≥ 1.")
    called = str(name or table.get("name") or chosen)
    try:
        check_cluster_name(called)
    except ConfigError as wrong:
        errors += wrong.messages
    raise_all(ConfigError, errors)
    options = {key: value for key, value in table.items() if key not in GENERAL}
    return ClusterRequest(called, str(chosen), count, options, environ)


def split_node_values(key: str, values: Sequence[str]) -> dict[str, Any]:
    """Return the options that a repeated flag gives: for all nodes, or for one as NODE=VALUE.

    >>> split_node_values("latency", ["1ms", "n2=5ms"])
    {'latency': '1ms', 'node': {'n2': {'latency': '5ms'}}}
    """
    found: dict[str, Any] = {}
    for value in values:
        node, equals, text = value.partition("=")
        if equals:
            found.setdefault("node", {}).setdefault(node, {})[key] = text
        else:
            found[key] = value
    return found


def merge_options(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return tables on top of each other, tables within them too.

    >>> merge_options([{"node": {"n1": {"a": 1}}}, {"node": {"n1": {"b": 2}}}])
    {'node': {'n1': {'a': 1, 'b': 2}}}
    """
    merged: dict[str, Any] = {}
    for table in tables:
        _merge(merged, table)
    return merged


def _merge(table: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(table.get(key), dict):
            _merge(table[key], value)
        else:
            table[key] = _copy(value)


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _apply(table: dict[str, Any], override: str, errors: list[str]) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        errors.append(f"--set: cannot be read, got '{override}'; expected key=value.")
        return
    value: Any = _toml_value(text.strip())
    for part in reversed(parts):
        value = {part: value}
    _merge(table, value)


def _toml_value(text: str) -> Any:
    try:
        return _load_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return _load_toml(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(
            f"{path}: cannot be read: {problem.strerror}. Check --config."
        ) from problem
    except ValueError as problem:  # UnicodeDecodeError is one too
        raise ConfigError(f"{path}: not valid TOML: {problem}.") from problem


def _load_toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    return tomllib.loads(text)
