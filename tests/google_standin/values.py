"""Schema documents and the values that belong to them: what a plan leaves open, what an apply
fills in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgpack
from tf.gen import tfplugin_pb2 as pb
from tf.types import Unknown
from tf.utils import to_dynamic_value

Block = dict[str, Any]
Path = tuple[Any, ...]
_NESTING = {
    "list": pb.Schema.NestedBlock.LIST,
    "set": pb.Schema.NestedBlock.SET,
    "single": pb.Schema.NestedBlock.SINGLE,
}


def block_message(block: Block) -> pb.Schema.Block:
    """Return a block of schema.json as the plugin protocol has it."""
    return pb.Schema.Block(
        attributes=[
            pb.Schema.Attribute(
                name=name,
                type=json.dumps(each["type"]).encode(),
                required=each["required"],
                optional=each["optional"],
                computed=each["computed"],
            )
            for name, each in sorted(block["attributes"].items())
        ],
        block_types=[
            pb.Schema.NestedBlock(
                type_name=name,
                nesting=_NESTING[each["nesting"]],
                min_items=each["min"],
                max_items=each["max"],
                block=block_message(each["block"]),
            )
            for name, each in sorted(block["blocks"].items())
        ],
    )


def decode(value: pb.DynamicValue) -> Any:
    """Return a value as Python has it; an unknown with refinements is an unknown."""
    if value.json:
        return json.loads(value.json)
    if not value.msgpack:
        return None
    return msgpack.unpackb(value.msgpack, ext_hook=lambda code, data: Unknown)


def encode(value: Any) -> pb.DynamicValue:
    """Return a value as the protocol has it."""
    return (
        pb.DynamicValue(msgpack=msgpack.packb(None)) if value is None else to_dynamic_value(value)
    )


def with_unknowns(block: Block, value: dict[str, Any]) -> dict[str, Any]:
    """Return a planned value: what is not given and the cloud may fill in is unknown."""
    planned = {
        name: Unknown if value.get(name) is None and each["computed"] else value.get(name)
        for name, each in block["attributes"].items()
    }
    for name, each in block["blocks"].items():
        planned[name] = _each(value.get(name), lambda _, v, b=each["block"]: with_unknowns(b, v))
    return planned


def settled(
    block: Block, value: dict[str, Any], fill: Callable[[Path], Any], path: Path = ()
) -> dict[str, Any]:
    """Return a value in which `fill` has decided all that was unknown."""
    known = {
        name: fill((*path, name)) if value.get(name) is Unknown else value.get(name)
        for name in block["attributes"]
    }
    for name, each in block["blocks"].items():
        known[name] = _each(
            value.get(name),
            lambda index, v, n=name, b=each["block"]: settled(b, v, fill, (*path, n, index)),
        )
    return known


def _each(value: Any, change: Callable[[int, dict[str, Any]], Any]) -> Any:
    if isinstance(value, list):
        return [change(i, v) if isinstance(v, dict) else v for i, v in enumerate(value)]
    return value
