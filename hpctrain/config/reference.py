"""Render `docs/configuration.md` from the schema: ``python -m hpctrain.config.reference``."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpctrain.config import schema
from hpctrain.config.load import as_tables

_HEAD = """\
# Configuration

<!-- Made by `python -m hpctrain.config.reference`; change hpctrain/config/schema.py instead. -->

Defaults, then the TOML file of `--config`, then `--set section.key=value`. Unknown keys and
wrong values are all named at once. What a run used stands whole in its `run.toml`.
"""


def render_reference() -> str:
    """Return the page: every setting with its type, default and meaning."""
    parts = [_HEAD]
    defaults = as_tables(schema.Config())
    for section in dataclasses.fields(schema.Config):
        model: Any = getattr(schema, str(section.type))
        doc = inspect.getdoc(model) or ""
        parts.append(f"\n## [{section.name}]\n\n{doc}\n\n")
        parts.append("| key | type | default | meaning |\n|---|---|---|---|\n")
        for name, kind, meaning in _fields(model):
            value = defaults[section.name][name]
            default = "" if value is None else f"`{json.dumps(value)}`"
            parts.append(f"| `{section.name}.{name}` | {kind} | {default} | {meaning} |\n")
    return "".join(parts)


def _fields(model: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (name, type, docstring) of each field: the docstring is the string below it."""
    (tree,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(tree, ast.ClassDef)
    for node, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            assert isinstance(after, ast.Expr), f"{node.target.id} has no docstring"
            assert isinstance(after.value, ast.Constant)
            yield node.target.id, _describe(ast.unparse(node.annotation)), str(after.value.value)


def _describe(annotation: str) -> str:
    words = {
        "Count": "whole number ≥ 1", "CountOrZero": "whole number ≥ 0", "Positive": "number > 0",
        "NonNegative": "number ≥ 0", "Part": "number 0 to 1", "Decay": "number 0 to below 1",
        "str": "text", "tuple[str, ...]": "list of texts", "Mapping[str, str]": "table of texts",
        "Mapping[str, Positive]": "table of numbers > 0",
        "CountOrZero | tuple[str, ...]": "whole number ≥ 0, or list of texts",
        "bool": "true, false",
    }  # fmt: skip
    kind = annotation.removesuffix(" | None")
    if kind.startswith("Literal["):
        return ", ".join(f"`{choice}`" for choice in ast.literal_eval(f"({kind[8:-1]},)"))
    return words[kind]


if __name__ == "__main__":
    Path("docs/configuration.md").write_text(render_reference(), encoding="utf-8")
