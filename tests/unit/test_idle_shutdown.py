"""The program that turns idle nodes off: when, and when not."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "terraform/modules/cluster_layout/files/idle_shutdown.py"


@pytest.fixture
def program(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("idle_shutdown", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.MARK = tmp_path / "since"
    module.SCHEDULED = tmp_path / "scheduled"
    module.called = []
    monkeypatch.setattr(module.subprocess, "run", lambda argv, **_: module.called.append(argv))
    monkeypatch.setattr(module, "read_gpu_percents", lambda: [0, 0])
    monkeypatch.setattr(module, "read_typed_ago_s", lambda now_s: 1e6)
    monkeypatch.setattr(module.os, "getloadavg", lambda: (0.0, 0.0, 0.01))
    return module


@pytest.mark.parametrize(
    ("load", "gpus", "typed_ago_s", "busy"),
    [
        (0.1, [], 1e6, False),
        (0.1, [0, 3], 1e6, False),
        (0.1, [0, 90], 1e6, True),  # one GPU works
        (1.0, [], 1e6, True),  # a rank that waits spins
        (0.1, [], 60.0, True),  # somebody types
    ],
)
def test_what_counts_as_busy(program, load, gpus, typed_ago_s, busy):
    assert program.is_busy(load, gpus, typed_ago_s) is busy


def at(program, monkeypatch, hour):
    monkeypatch.setattr(program.time, "time", lambda: 1e9 + hour * 3600)
    program.main(2.0)
    return [argv[1] for argv in program.called if argv[0] == "shutdown"]


def test_off_after_the_hours_and_not_before(program, monkeypatch):
    assert at(program, monkeypatch, 0) == []
    assert at(program, monkeypatch, 1.9) == []
    assert at(program, monkeypatch, 2.0) == ["-h"]
    program.SCHEDULED.touch()
    assert at(program, monkeypatch, 2.1) == ["-h"]  # not put off by asking again


def test_work_begins_the_count_anew_and_calls_it_off(program, monkeypatch):
    at(program, monkeypatch, 0)
    monkeypatch.setattr(program.os, "getloadavg", lambda: (8.0, 8.0, 8.0))
    assert at(program, monkeypatch, 1.5) == ["-c"]
    monkeypatch.setattr(program.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert at(program, monkeypatch, 2.5) == ["-c"]
    assert at(program, monkeypatch, 4.4) == ["-c"]
    assert at(program, monkeypatch, 4.5) == ["-c", "-h"]
