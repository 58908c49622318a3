"""Terraform's output as values, and how the adapter words its commands; no Terraform is run."""

import json

import pytest

pytest.importorskip("python_terraform")

from hpctrain.clusters.cloud import terraform as adapter_module
from hpctrain.clusters.cloud.events import (
    Message,
    Progress,
    error_messages,
    fold_message,
    parse_message,
    planned_actions,
)
from hpctrain.clusters.cloud.terraform import TerraformAdapter, failure, whole_lines

# Captured from Terraform 1.11.4.
APPLY = """\
{"@level":"info","@message":"Terraform 1.11.4","type":"version","ui":"1.2"}
{"@message":"a.b: Plan to create","change":{"resource":{"addr":"a.b"},"action":"create"},"type":"planned_change"}
{"@message":"a.b: Creating...","hook":{"resource":{"addr":"a.b"},"action":"create"},"type":"apply_start"}
{"@message":"a.b: Still creating...","hook":{"resource":{"addr":"a.b"},"action":"create","elapsed_seconds":10},"type":"apply_progress"}
{"@message":"a.b: Creation complete after 12s [id=i-1]","hook":{"resource":{"addr":"a.b"},"action":"create","id_key":"id","id_value":"i-1","elapsed_seconds":12},"type":"apply_complete"}
{"@message":"a.c: Creation errored after 0s","hook":{"resource":{"addr":"a.c"},"action":"create","elapsed_seconds":0},"type":"apply_errored"}
{"@level":"error","@message":"Error: no","diagnostic":{"severity":"error","summary":"creating: denied","detail":"","address":"a.c"},"type":"diagnostic"}
"""  # noqa: E501


@pytest.fixture
def messages():
    return [parse_message(line) for line in APPLY.splitlines()]


def test_resources_with_state_and_time(messages):
    progress = Progress()
    for message in messages[:4]:
        progress = fold_message(progress, message)
    assert (progress.resources["a.b"].state, progress.resources["a.b"].seconds) == ("creating", 10)
    for message in messages[4:]:
        progress = fold_message(progress, message)
    assert progress.resources["a.b"].state == "created"
    assert (progress.resources["a.b"].id, progress.resources["a.b"].seconds) == ("i-1", 12)
    assert [each.state for each in progress.resources.values()] == ["created", "failed"]


def test_errors_name_the_resource_once(messages):
    assert error_messages([*messages, *messages]) == ["a.c: creating: denied"]
    assert planned_actions(messages) == {"a.b": "create"}


def test_a_failure_always_says_something(messages):
    assert failure("terraform apply", 1, messages, "") == ["a.c: creating: denied"]
    assert failure("terraform apply", 1, [], "╷\n│ Error: state locked\n╵") == [
        "Error: state locked"
    ]
    assert failure("terraform apply", 11, [], "") == [
        "terraform apply: ended with exit code 11 and said nothing"
    ]


def test_half_a_line_is_read_when_it_is_whole(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b'{"a": 1}\n{"b"')
    with path.open("rb") as file:
        assert list(whole_lines(file)) == ['{"a": 1}\n']
        with path.open("ab") as more:
            more.write(b": 2}\n")
        assert list(whole_lines(file)) == ['{"b": 2}\n']


class Recording:
    """Stands in for the executor: remembers commands, answers nothing."""

    def __init__(self, started):
        self.started = started

    def run(self, command, *, timeout_s, stdin=""):
        from hpctrain.executor import Completed

        self.started.append(command)
        return Completed(command, 0, json.dumps({"x": {"value": 1}}), "")


def test_commands_as_terraform_takes_them(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(adapter_module, "LocalExecutor", lambda: Recording(started))
    monkeypatch.setattr(
        TerraformAdapter, "_stream", lambda self, command, name: self_stream(started, command)
    )
    adapter = TerraformAdapter(tmp_path)
    adapter.prepare()
    adapter.plan_into("p", lambda message: None, lock=False)
    adapter.carry_out("p", lambda message: None)
    adapter.tear_down(lambda message: None)
    assert adapter.read_outputs() == {"x": 1}
    words = [list(command.argv) for command in started]
    assert [each[:2] for each in words] == [["terraform", f"-chdir={tmp_path}"]] * 5
    assert [sorted(each[3:]) for each in words] == [
        ["-backend=true", "-input=false", "-no-color", "-reconfigure"],
        ["-detailed-exitcode", "-input=false", "-json", "-lock=false", "-no-color", "-out=p"],
        ["-auto-approve=true", "-input=false", "-json", "-lock-timeout=10s", "-no-color", "p"],
        ["-auto-approve", "-input=false", "-json", "-lock-timeout=10s", "-no-color"],
        ["-json", "-no-color"],
    ]
    assert words[2][-1] == "p"  # a plan comes after the options
    assert all(command.env["TF_IN_AUTOMATION"] == "1" for command in started)


def self_stream(started, command):
    started.append(command)
    return 0, "", ""


def test_text_that_is_no_message_keeps_its_words():
    assert parse_message("panic: runtime error\n") == Message(
        "text", {"@message": "panic: runtime error"}
    )
    assert parse_message("[1, 2]").type == "text"
