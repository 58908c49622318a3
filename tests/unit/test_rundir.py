"""The run directory: names, locks, what is written, and what its files say of a run."""

import errno
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.cli.runs import command
from hpctrain.errors import RunDirectoryError
from hpctrain.rundir import (
    RunDirectory,
    RunSummary,
    check_name,
    list_runs,
    read_events,
    remove_run,
    summarize_run,
)


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def make(runs, name="r", **more):
    return RunDirectory.create(runs / name, **more)


def files_of(path):
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}


# -- names ---------------------------------------------------------------------------------------

HOSTILE = [
    "", ".", "..", "../up", "a/b", "/abs", "-rf", "--name", ".hidden", "_x", "a b", "a\nb", "a\n",
    "a\0b", "~", "$HOME", "$(id)", "a;b", "a'b", 'a"b', "a\\b", "*", "a:b", "é", "a" * 129,
    "a%2fb", "a#b", "a?b", "a&b", "\uff11",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(runs, name):
    with pytest.raises(RunDirectoryError, match="cannot be a run's name"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "7", "lr-3e-4", "a.b_c+d", "A" * 128, "a..b"])
def test_plain_names_are_taken(runs, name):
    run = make(runs, name)
    assert run.path == runs / name
    run.close()


@given(st.text())
def test_a_name_that_passes_is_safe_anywhere(name):
    try:
        check_name(name)
    except RunDirectoryError:
        return
    assert name.isascii()
    assert not set(name) & set("/\\ \t\n\0'\"$`;&|<>()*?[]{}~#!:%")
    assert name[0] not in ".-"


# -- making and opening --------------------------------------------------------------------------


def test_a_new_run_has_its_folders_and_a_lock(runs):
    make(runs).close()
    assert {path.name for path in (runs / "r").iterdir()} == {"logs", "ranks", ".lock"}


def test_a_taken_name_is_refused_with_the_ways_out(runs):
    make(runs).close()
    with pytest.raises(RunDirectoryError, match=r"taken.*--name.*--resume.*runs remove r"):
        make(runs)
    (runs / "file").touch()
    with pytest.raises(RunDirectoryError, match="taken"):
        make(runs, "file")


def test_resuming_needs_a_run_and_keeps_what_is_there(runs):
    with pytest.raises(RunDirectoryError, match="no such run"):
        make(runs, resume=True)
    assert not runs.exists()
    first = make(runs)
    assert first.next_attempt() == 1
    first.event("attempt", attempt=1)
    first.log(0, b"first\n")
    first.close()
    second = make(runs, resume=True)
    assert second.next_attempt() == 2
    second.event("attempt", attempt=2)
    second.log(0, b"second\n")
    second.close()
    assert [event["attempt"] for event in read_events(runs / "r")] == [1, 2]
    assert (runs / "r/logs/rank-00000.log").read_bytes() == b"first\nsecond\n"


def test_a_folder_that_is_no_run_is_not_resumed(runs):
    (runs / "thesis").mkdir(parents=True)
    (runs / "thesis" / "chapter1.tex").touch()
    with pytest.raises(RunDirectoryError):
        make(runs, "thesis", resume=True).close()
    assert files_of(runs / "thesis") == {"chapter1.tex"}


def test_a_run_that_runs_is_opened_by_nobody_else(runs):
    first = make(runs)
    with pytest.raises(RunDirectoryError, match="another hpctrain is running it"):
        make(runs, resume=True)
    first.close()
    make(runs, resume=True).close()


def test_of_many_launchers_at_once_one_wins(runs):
    def try_it(_):
        try:
            return make(runs)
        except RunDirectoryError:
            return None

    with ThreadPoolExecutor(16) as pool:
        made = [run for run in pool.map(try_it, range(64)) if run is not None]
    assert len(made) == 1
    made[0].close()


def test_the_lock_goes_with_the_launcher_that_dies(runs):
    code = (
        "import os, sys; from pathlib import Path; from hpctrain.rundir import RunDirectory\n"
        "run = RunDirectory.create(Path(sys.argv[1])); run.event('attempt', attempt=1)\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(runs / "r")], check=False)
    assert summarize_run(runs / "r").state == "died"
    make(runs, resume=True).close()


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="cannot be written: Not a directory"):
        make(tmp_path / "file")


# -- writing -------------------------------------------------------------------------------------


def test_records_go_to_the_events_or_to_the_ranks_own_file(runs):
    run = make(runs)
    run.record(0, {"event": "step", "step": 1})
    run.record(0, {"event": "rank_started"})
    run.record(1, {"event": "step", "step": 1})
    run.record(12345, {"event": "rank_exit"})
    run.record(123456, {})
    run.log_launcher(b"mpirun says\n")
    run.log(7, b"\xff\0 no end")
    run.close()
    written = {name: (run.path / name).read_bytes() for name in files_of(run.path) - {".lock"}}
    assert written == {
        "events.jsonl": b'{"event":"step","step":1}\n',
        "ranks/rank-00000.jsonl": b'{"event":"rank_started"}\n',
        "ranks/rank-00001.jsonl": b'{"event":"step","step":1}\n',
        "ranks/rank-12345.jsonl": b'{"event":"rank_exit"}\n',
        "ranks/rank-123456.jsonl": b"{}\n",
        "logs/mpirun.log": b"mpirun says\n",
        "logs/rank-00007.log": b"\xff\0 no end",
    }


def test_every_line_is_there_at_once(runs):
    run = make(runs)
    run.event("attempt", attempt=1)
    run.log(0, b"x")
    assert [event["event"] for event in read_events(run.path)] == ["attempt"]
    assert (run.path / "logs/rank-00000.log").read_bytes() == b"x"
    run.close()


def test_whole_files_are_replaced_and_leave_no_draft(runs):
    run = make(runs)
    run.write_text("run.toml", "one")
    run.write_text("run.toml", "two é")
    run.close()
    assert (run.path / "run.toml").read_text(encoding="utf-8") == "two é"
    assert files_of(run.path) == {".lock", "run.toml"}


def test_the_end_of_a_log(runs):
    run = make(runs)
    assert run.log_tail(0, 3) == []
    run.log(0, b"".join(b"line %d\n\n" % number for number in range(5000)) + b"\xff no end")
    assert run.log_tail(0, 3) == ["line 4998", "line 4999", "\ufffd no end"]
    run.close()


HALF = b'{"schema": 1, "event": "attempt", "attempt": 1}\n{"schema": 1, "event": "st'


def test_half_lines_and_foreign_ones_are_left_out(runs):
    make(runs).close()
    (runs / "r/events.jsonl").write_bytes(b"\xff\n[1]\n7\n\n" + HALF)
    assert [event["event"] for event in read_events(runs / "r")] == ["attempt"]
    assert list(read_events(runs / "no-such-run")) == []


def test_an_attempt_after_a_half_line_is_not_lost(runs):
    make(runs).close()
    (runs / "r/events.jsonl").write_bytes(HALF)
    run = make(runs, resume=True)
    run.event("attempt", attempt=run.next_attempt())
    assert run.next_attempt() == 3
    run.close()


def test_on_a_full_disk_a_run_can_be_tried_again(runs, monkeypatch):
    """What stands there already need not be written; what waits for room is not forgotten."""
    run = make(runs)
    run.write_text("plan.json", "{}")

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    warnings = []
    run.warn = warnings.append
    monkeypatch.setattr(Path, "write_text", fail)
    monkeypatch.setattr("hpctrain.append_files.open", fail, raising=False)
    assert run.begin_attempt() == 1
    run.event("attempt", attempt=1)
    assert run.begin_attempt() == 2
    run.write_text("plan.json", "{}")
    with pytest.raises(OSError, match="No space left"):
        run.write_text("plan.json", '{"np": 2}')
    run.write_stacks(0, "lost")
    assert (run.path / "plan.json").read_text() == "{}"
    assert not list(run.path.glob(".*.tmp"))
    monkeypatch.undo()
    run.event("attempt", attempt=2)
    assert [event["attempt"] for event in read_events(run.path)] == [1, 2]
    run.close()
    assert len(warnings) == 1


# -- orders --------------------------------------------------------------------------------------


def test_an_order_is_taken_away_and_counts_once(runs):
    run = make(runs)
    assert run.take_orders() == []
    (run.path / "SAVE").touch()
    (run.path / "STOP").touch()
    assert run.take_orders() == [("STOP", signal.SIGTERM), ("SAVE", signal.SIGUSR1)]
    assert run.take_orders() == []
    assert not (run.path / "STOP").exists()
    run.close()


def test_an_order_that_cannot_be_taken_away_counts_once_until_it_has_gone(runs):
    run = make(runs)
    for _ in range(2):
        (run.path / "STOP").mkdir()
        assert run.take_orders() == [("STOP", signal.SIGTERM)]
        assert run.take_orders() == run.take_orders() == []
        (run.path / "STOP").rmdir()
        assert run.take_orders() == []
    run.close()


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES, errno.EROFS])
def test_a_file_server_that_is_away_orders_nothing(runs, monkeypatch, number):
    def fail(path):
        raise OSError(number, os.strerror(number))

    run = make(runs)
    monkeypatch.setattr(Path, "unlink", fail)
    assert run.take_orders() == []
    (run.path / "STOP").touch()
    assert run.take_orders() == [("STOP", signal.SIGTERM)]
    monkeypatch.undo()
    assert run.take_orders() == []  # it is back, and takes away what has counted
    assert not (run.path / "STOP").exists()
    run.close()


# -- reading -------------------------------------------------------------------------------------

PLAN = {"program": "python train.py", "np": 4, "placement": [
    {"host": "n1", "ranks": 2, "slots": 2}, {"host": "n2", "ranks": 2, "slots": 2},
]}  # fmt: skip


def write_events(runs, name, *events):
    """Make a run whose events begin at 100 s, one each second."""
    run = make(runs, name)
    run.write_text("plan.json", json.dumps(PLAN))
    for number, event in enumerate(events):
        run.record(0, {"schema": 1, "time_s": 100.0 + number, **event})
    return run


STEPS = (
    {"event": "run_started", "steps": 10},
    {"event": "step", "step": 1, "loss": 5.0, "tokens_per_s": 100.0},
    {"event": "step", "step": 2, "loss": 4.0, "tokens_per_s": 120.0, "val_loss": None},
    {"event": "eval", "step": 2, "val_loss": 4.5},
)
ATTEMPT = {"event": "attempt", "attempt": 1}


def finished(state, code):
    return {"event": "run_finished", "state": state, "exit_code": code}


def summary(runs, name, state, **changes):
    known = dict(
        name=name, path=str(runs / name), state=state, attempts=1, command="python train.py", np=4,
        hosts=("n1", "n2"), started_at_s=100.0, duration_s=5.0, exit_code=None, step=2, steps=10,
        loss=4.0, val_loss=4.5, tokens_per_s=120.0, failure=None,
    )  # fmt: skip
    return RunSummary(**{**known, **changes})


@pytest.mark.parametrize(("state", "code"), [("done", 0), ("failed", 7), ("stopped", 130)])
def test_a_run_that_has_ended(runs, state, code):
    write_events(runs, "r", ATTEMPT, *STEPS, finished(state, code)).close()
    assert summarize_run(runs / "r") == summary(runs, "r", state, exit_code=code)


def test_a_run_that_runs_and_one_whose_launcher_died(runs):
    run = write_events(runs, "r", ATTEMPT, *STEPS)
    assert summarize_run(runs / "r") == summary(runs, "r", "running", duration_s=4.0)
    run.close()
    assert summarize_run(runs / "r") == summary(runs, "r", "died", duration_s=4.0)


def test_only_the_latest_attempt_counts(runs):
    again = {"event": "attempt", "attempt": 2}
    step = {"event": "step", "step": 3, "loss": 3.0}
    write_events(runs, "r", ATTEMPT, *STEPS, finished("failed", 7), again, step).close()
    expected = summary(
        runs, "r", "died", attempts=2, started_at_s=106.0, duration_s=1.0, step=3, steps=None,
        loss=3.0, val_loss=None, tokens_per_s=None,
    )  # fmt: skip
    assert summarize_run(runs / "r") == expected


@pytest.mark.parametrize("plan", [None, "", "{half"])
def test_an_empty_run(runs, plan):
    make(runs).close()
    if plan is not None:
        (runs / "r/plan.json").write_text(plan)
    unknown = dict.fromkeys(RunSummary.__dataclass_fields__)
    about = dict(name="r", path=str(runs / "r"), state="empty", attempts=0, hosts=())
    assert summarize_run(runs / "r") == RunSummary(**{**unknown, **about})


def test_a_loss_that_broke_is_shown(runs):
    write_events(runs, "r", ATTEMPT, {"event": "step", "step": 1, "loss": "nan"}).close()
    assert summarize_run(runs / "r").loss == "nan"
    assert run_cli("show", "r", "--runs-dir", runs).output.count("nan") == 1


def test_runs_are_listed_the_oldest_first_and_other_folders_are_not(runs):
    assert list_runs(runs) == []
    make(runs, "never-started").close()
    write_events(runs, "second", {**ATTEMPT, "time_s": 20.0}).close()
    write_events(runs, "first", {**ATTEMPT, "time_s": 10.0}).close()
    (runs / "other").mkdir()
    (runs / "file").touch()
    assert [run.name for run in list_runs(runs)] == ["never-started", "first", "second"]


# -- removing, and the command line --------------------------------------------------------------


def test_only_a_run_that_has_ended_is_removed(runs):
    run = make(runs)
    with pytest.raises(RunDirectoryError, match="it is running"):
        remove_run(runs / "r")
    assert run.path.exists()
    run.close()
    remove_run(runs / "r")
    assert not run.path.exists()


def test_a_foreign_folder_is_not_removed(runs):
    (runs / "thesis").mkdir(parents=True)
    for path in (runs / "thesis", runs / "no-such-run", runs / ".."):
        with pytest.raises(RunDirectoryError):
            remove_run(path)
    assert (runs / "thesis").is_dir()


def run_cli(*words, **more):
    return CliRunner().invoke(command, [str(word) for word in words], **more)


def test_removing_is_all_or_nothing_and_asks(runs):
    for name in ("a", "b"):
        make(runs, name).close()
    result = run_cli("remove", "a", "nope", "..", "--runs-dir", runs, "--yes")
    assert len(result.exception.messages) == 2
    assert run_cli("remove", "a", "b", "--runs-dir", runs, input="n\n").exit_code == 1
    assert {path.name for path in runs.iterdir()} == {"a", "b"}
    assert run_cli("remove", "a", "b", "--runs-dir", runs, input="y\n").exit_code == 0
    assert list(runs.iterdir()) == []


def test_nothing_outside_of_the_runs_folder_is_removed(tmp_path, runs):
    make(tmp_path / "elsewhere", "r").close()
    runs.mkdir()
    for name in ("../elsewhere/r", str(tmp_path / "elsewhere" / "r")):
        run_cli("remove", name, "--runs-dir", runs, "--yes")
        assert (tmp_path / "elsewhere" / "r").is_dir()


def test_list_and_show_as_json_and_for_people(runs):
    write_events(runs, "r", ATTEMPT, *STEPS, finished("failed", 7)).close()
    listed = json.loads(run_cli("list", "--runs-dir", runs, "--json").output)
    shown = json.loads(run_cli("show", "r", "--runs-dir", runs, "--json").output)
    assert shown.pop("goodput")["steps"] == 2
    assert listed == [shown]
    assert (shown["state"], shown["exit_code"], shown["step"]) == ("failed", 7, 2)
    assert "failed (7)" in run_cli("list", "--runs-dir", runs).output
    assert "2/10" in run_cli("show", "r", "--runs-dir", runs).output
    assert f"no runs in {runs / 'x'}" in run_cli("list", "--runs-dir", runs / "x").output
    assert isinstance(run_cli("show", "x", "--runs-dir", runs).exception, RunDirectoryError)


def test_names_stay_whole_in_a_narrow_terminal(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    name = "a-rather-long-name-that-other-commands-take-as-it-stands"
    make(runs, name).close()
    assert name in run_cli("list", "--runs-dir", runs).output


def test_names_are_completed(runs, monkeypatch):
    from click.shell_completion import ShellComplete

    from hpctrain.cli import cli

    monkeypatch.chdir(runs.parent)
    for name in ("abc", "abd", "x"):
        make(runs, name).close()
    complete = ShellComplete(cli, {}, "hpctrain", "_HPCTRAIN_COMPLETE")
    found = complete.get_completions(["runs", "remove"], "ab")
    assert [item.value for item in found] == ["abc", "abd"]
