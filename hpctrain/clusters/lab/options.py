"""What can be asked of a lab: options as typed → values, with every mistake at once. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hpctrain.clusters.lab.shape import Shape, parse_shape
from hpctrain.errors import ConfigError, did_you_mean, raise_all

DEFAULT_NODES, MAX_NODES = 2, 64
DEFAULT_SLOTS, MAX_SLOTS = 2, 256
SHAPE_KEYS = ("bandwidth", "latency", "loss")
KNOWN = (*SHAPE_KEYS, "slots", "private_disk", "hide", "node")
_NODE = re.compile(r"n([1-9]\d{0,2})")


@dataclass(frozen=True, slots=True)
class LabOptions:
    """What a lab is to be like.

    Args:
        slots: ranks a node.
        shape: every node's link.
        node_shapes: text of the parts that are different for single nodes, by node.
        private_disk: every node sees its own writes alone.
        hide: folders that begin empty on such a disk, relative to the working folder.
    """

    nodes: int = DEFAULT_NODES
    slots: int = DEFAULT_SLOTS
    shape: Shape = field(default_factory=Shape)
    node_shapes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    private_disk: bool = False
    hide: tuple[str, ...] = ("runs",)

    def shape_of(self, node: str) -> Shape:
        """Return the shape of one node's link."""
        shape = self.shape
        for key, text in self.node_shapes.get(node, {}).items():
            shape = parse_shape(text, key, node, [], shape)
        return shape


def parse_options(
    nodes: int | None, options: Mapping[str, Any], before: LabOptions | None = None
) -> LabOptions:
    """Return what is asked for, on top of what a lab that is up was asked before.

    >>> parse_options(4, {"bandwidth": "1gbit", "node": {"n2": {"latency": "5ms"}}}).nodes
    4

    Raises:
        ConfigError: naming every unknown key and every value that is none.
    """
    found = before or LabOptions()
    errors = [
        f"{key}: no such option of a lab; expected one of {', '.join(KNOWN)}."
        f"{did_you_mean(key, KNOWN)}"
        for key in options
        if key not in KNOWN
    ]
    if nodes is not None:
        found = replace(found, nodes=_count(nodes, "--nodes", MAX_NODES, errors))
    if "slots" in options:
        found = replace(found, slots=_count(options["slots"], "slots", MAX_SLOTS, errors))
    for key in SHAPE_KEYS:
        if key in options:
            shape = parse_shape(str(options[key]), key, key, errors, found.shape)
            # What is said of all nodes takes the place of what was said of one before.
            rest = {
                n: {k: t for k, t in p.items() if k != key} for n, p in found.node_shapes.items()
            }
            found = replace(found, shape=shape, node_shapes={n: p for n, p in rest.items() if p})
    if "node" in options:
        found = replace(found, node_shapes=_node_shapes(options["node"], found, errors))
    if "private_disk" in options:
        found = replace(found, private_disk=_switch(options["private_disk"], errors))
    if "hide" in options:
        found = replace(found, hide=_folders(options["hide"], errors))
    raise_all(ConfigError, errors)
    return found


def options_as_json(options: LabOptions) -> dict[str, Any]:
    """Return the options as plain values, for the cluster's record."""
    shape = options.shape
    return {
        "nodes": options.nodes,
        "slots": options.slots,
        "shape": [shape.bandwidth_bit_per_s, shape.latency_s, shape.loss],
        "node_shapes": {node: dict(parts) for node, parts in options.node_shapes.items()},
        "private_disk": options.private_disk,
        "hide": list(options.hide),
    }


def options_from_json(table: Mapping[str, Any]) -> LabOptions:
    """Return the options that :func:`options_as_json` wrote."""
    return LabOptions(
        nodes=table["nodes"],
        slots=table["slots"],
        shape=Shape(*table["shape"]),
        node_shapes=table["node_shapes"],
        private_disk=table["private_disk"],
        hide=tuple(table["hide"]),
    )


def node_number(word: str, nodes: int, where: str, errors: list[str], prefix: str = "") -> int:
    """Return the number of a node, given as n2 or with its cluster's name; 0 for an error."""
    match = _NODE.fullmatch(word.removeprefix(prefix))
    if match is None or int(match[1]) > nodes:
        expected = "n1" if nodes == 1 else f"n1 to n{nodes}"
        errors.append(f"{where}: no such node, got '{word}'; expected {expected}.")
        return 0
    return int(match[1])


def _node_shapes(given: Any, found: LabOptions, errors: list[str]) -> dict[str, Mapping[str, str]]:
    merged = {node: dict(parts) for node, parts in found.node_shapes.items()}
    if not isinstance(given, Mapping):
        errors.append(f"node: no table, got '{given}'; expected [node.n2] with bandwidth = ….")
        return dict(merged)
    for node, parts in given.items():
        number = node_number(str(node), found.nodes, f"node.{node}", errors)
        if not isinstance(parts, Mapping):
            errors.append(f"node.{node}: no table, got '{parts}'; expected bandwidth = … in it.")
            continue
        for key, text in parts.items():
            where = f"node.{node}.{key}"
            if key not in SHAPE_KEYS:
                known = ", ".join(SHAPE_KEYS)
                errors.append(f"{where}: no such option of a node; expected one of {known}.")
                continue
            parse_shape(str(text), key, where, errors, Shape())
            if number:
                merged.setdefault(f"n{number}", {})[key] = str(text)
    return dict(merged)


def _count(value: Any, where: str, most: int, errors: list[str]) -> int:
    number = value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
        errors.append(f"{where}: no count, got '{value}'; expected 1 to {most}.")
        return 1
    return number


def _switch(value: Any, errors: list[str]) -> bool:
    words = {"true": True, "false": False, "on": True, "off": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() not in words:
        errors.append(f"private_disk: neither yes nor no, got '{value}'; expected true or false.")
    return words.get(str(value).lower(), False)


def _folders(value: Any, errors: list[str]) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(each, str) and each for each in value):
        return tuple(value)
    errors.append(f"hide: no list of folders, got '{value}'; expected one like [\"runs\"].")
    return ()
