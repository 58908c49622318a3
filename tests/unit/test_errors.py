"""Which errors a machine may answer by itself, and how a rank says so."""

import json
import os

import pytest

from hpctrain import errors
from hpctrain.errors import EXIT_USAGE, HpctrainError
from hpctrain.events import EVENTS_FD_VARIABLE

ALL = [error for error in vars(errors).values()
       if isinstance(error, type) and issubclass(error, HpctrainError)]  # fmt: skip


def test_only_faults_of_machines_are_worth_another_try():
    assert {error.__name__ for error in ALL if error.retryable} == {
        "FaultyHostError",
        "LaunchError",
    }
    assert not any(error.retryable for error in ALL if error.exit_code == EXIT_USAGE)


@pytest.mark.parametrize("error", [
    errors.DataError("data: is damaged"), errors.FaultyHostError("the sum is not finite", "more"),
])  # fmt: skip
def test_a_rank_says_whether_to_try_again(error, monkeypatch, capsys):
    from hpctrain.train.__main__ import tell

    reader, writer = os.pipe()
    monkeypatch.setenv(EVENTS_FD_VARIABLE, f"{writer}:{os.fstat(writer).st_ino}")
    assert tell(error) == error.exit_code
    os.close(writer)
    with open(reader, "rb") as pipe:
        event = json.loads(pipe.read())
    assert (event["event"], event["error"]) == ("train_failed", type(error).__name__)
    assert (event["retryable"], event["message"]) == (error.retryable, error.messages[0])
    assert f"error: {error.messages[0]}" in capsys.readouterr().err
