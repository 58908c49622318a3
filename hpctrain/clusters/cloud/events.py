"""Terraform's machine-readable output → which resource is in which state since when.

Source: Terraform documentation, "Machine-Readable UI" (format version 1.2, Terraform 1.11).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

_OUR_OWN = (
    "Invalid value for variable", "Module output value precondition failed",
    "Resource precondition failed",
)  # fmt: skip
VERBS = {"create": "creating", "update": "changing", "delete": "destroying", "read": "reading"}
DONE = {"create": "created", "update": "changed", "delete": "destroyed", "read": "read"}


@dataclass(frozen=True, slots=True)
class Message:
    """One line: its type and everything in it."""

    type: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return str(self.fields.get("@message", ""))


@dataclass(frozen=True, slots=True)
class ResourceState:
    """A resource: `state` is planned, creating, created, changing, …, or failed."""

    address: str
    action: str
    state: str
    seconds: float = 0.0
    id: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """All resources of one plan or apply, in the order of their first mention."""

    resources: Mapping[str, ResourceState] = field(default_factory=dict)


def parse_message(line: str) -> Message:
    """Return a line of output as a message; one that is no JSON keeps its text.

    >>> parse_message('{"type": "version", "@message": "Terraform 1.11.4"}').type
    'version'
    >>> parse_message("panic: …").type
    'text'
    """
    try:
        fields = json.loads(line)
        return Message(str(fields.get("type", "")), fields)
    except (ValueError, AttributeError):
        return Message("text", {"@message": line.rstrip()})


def fold_message(progress: Progress, message: Message) -> Progress:
    """Return the progress after a message.

    >>> start = {"hook": {"resource": {"addr": "a.b"}, "action": "create"}}
    >>> fold_message(Progress(), Message("apply_start", start)).resources["a.b"].state
    'creating'
    """
    hook = message.fields.get("hook") or {}
    if message.type == "planned_change":
        change = message.fields["change"]
        address, action = change["resource"]["addr"], change["action"]
        return _with(progress, ResourceState(address, action, "planned"))
    if message.type not in ("apply_start", "apply_progress", "apply_complete", "apply_errored"):
        return progress
    address, action = hook["resource"]["addr"], hook.get("action", "")
    states = {
        "apply_start": VERBS.get(action, action),
        "apply_progress": VERBS.get(action, action),
        "apply_complete": DONE.get(action, action),
        "apply_errored": "failed",
    }
    before = progress.resources.get(address, ResourceState(address, action, ""))
    return _with(
        progress,
        replace(
            before,
            action=action,
            state=states[message.type],
            seconds=float(hook.get("elapsed_seconds", 0.0)),
            id=str(hook.get("id_value", before.id)),
        ),
    )


def planned_actions(messages: Iterable[Message]) -> dict[str, str]:
    """Return what a plan does with each resource: create, update, replace, delete."""
    changes = (message.fields["change"] for message in messages if message.type == "planned_change")
    return {change["resource"]["addr"]: change["action"] for change in changes}


def error_messages(messages: Iterable[Message]) -> list[str]:
    """Return the errors, each in one line, each once, with the resource that has it."""
    found = []
    for message in messages:
        diagnostic = message.fields.get("diagnostic") or {}
        if message.type == "diagnostic" and diagnostic.get("severity") == "error":
            found.append(render_diagnostic(diagnostic))
    return list(dict.fromkeys(found))


def render_diagnostic(diagnostic: Mapping[str, Any]) -> str:
    """Return a diagnostic in one line.

    A validation of ours says everything in its own words; what Terraform wraps round it is left
    out.

    >>> render_diagnostic({"summary": "Invalid value for variable", "detail":
    ...     "zone: got 'x'.\\n\\nThis was checked by the validation rule at variables.tf:1."})
    "zone: got 'x'."
    """
    summary = " ".join(str(diagnostic.get("summary", "")).split())
    detail = str(diagnostic.get("detail", ""))
    if summary in _OUR_OWN:
        return " ".join(detail.split("\n\nThis was checked by")[0].split())
    address = diagnostic.get("address")
    words = " ".join(detail.split())
    text = f"{summary}: {words}" if words and words not in summary else summary
    return f"{address}: {text}" if address else text


def short_address(address: str) -> str:
    """Return a resource's address without the module that all have in common.

    >>> short_address("module.cluster.aws_instance.node[0]")
    'aws_instance.node[0]'
    """
    return address.removeprefix("module.cluster.")


def _with(progress: Progress, resource: ResourceState) -> Progress:
    return Progress({**progress.resources, resource.address: resource})
