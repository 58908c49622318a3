"""What a person sees of a run that is not on a terminal, byte by byte."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpctrain.executor import Command
from hpctrain.launch.console import RunConsole
from hpctrain.launch.outcome import Outcome, RankFailure
from hpctrain.launch.placement import Placement
from hpctrain.launch.plan import LaunchPlan
from hpctrain.rundir import RunDirectory


def plan(*hosts):
    placement = tuple(Placement(host, 2, 2) for host in hosts or ("n1", "n2"))
    return LaunchPlan(
        command=Command(("mpirun",)), np=2 * len(placement), placement=placement,
        program=("train",), files={}, reasons=(), warnings=(), mpi="Open MPI 5 (5.0.11, PATH)",
        python="python", channel_address="127.0.0.1", ssh_options=(), remote_hosts=(),
        start_timeout_s=1.0, grace_s=1.0,
    )  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = RunDirectory.create(Path("runs/r"))
    yield made
    made.close()


@pytest.fixture
def console(run):
    return RunConsole(plan(), run)


DONE = Outcome("done", 0, 3.25)
NASTY = b"\x1b[31mred\x1b[0m \xff\0\r 50%\r no end"


def test_output_of_rank_0_is_ours_byte_by_byte(console, capsysbinary):
    console.rank_output(0, "n1", "stdout", NASTY)
    console.rank_output(0, "n1", "stderr", NASTY[::-1])
    assert capsysbinary.readouterr() == (NASTY, NASTY[::-1])


def test_of_other_ranks_only_complaints_are_shown_line_by_line(console, capsysbinary):
    console.rank_output(1, "n1", "stdout", b"never shown\n")
    console.rank_output(1, "n1", "stderr", b"first\nsec")
    console.rank_output(3, "n2", "stderr", b"other \xff\n")
    console.rank_output(1, "n1", "stderr", b"ond\n\nthird")
    out, err = capsysbinary.readouterr()
    assert out == b""
    assert err == (b"[rank 1 n1] first\n[rank 3 n2] other \xff\n[rank 1 n1] second\n[rank 1 n1] \n")


def test_a_last_line_without_an_end_is_not_lost(console, capsysbinary):
    console.rank_output(1, "n1", "stderr", b"whole\nhalf")
    console.finish(DONE)
    lines = capsysbinary.readouterr().err.splitlines()
    assert [line.rpartition(b"] ")[2] for line in lines[:2]] == [b"whole", b"half"]


def test_a_last_line_without_an_end_is_tagged_like_the_others(console, capsysbinary):
    console.rank_output(1, "n1", "stderr", b"half")
    console.finish(DONE)
    assert capsysbinary.readouterr().err.startswith(b"[rank 1 n1] half\n")


def test_the_header_says_what_starts_where(run, capsys):
    RunConsole(plan(), run).header(1)
    RunConsole(plan("a"), run).header(3)
    RunConsole(plan(*[f"n{i}" for i in range(9)]), run).header(1)
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "runs/r: 4 ranks on n1:2, n2:2, Open MPI 5 (5.0.11, PATH)"
    assert second == "runs/r, attempt 3: 2 ranks on a:2, Open MPI 5 (5.0.11, PATH)"
    assert "18 ranks on n0:2" in third
    assert "… (9 hosts)" in third


def failed(**changes):
    failure = RankFailure(3, "n2", 7, None, "exit code 7")
    return Outcome(**{**dict(state="failed", exit_code=7, duration_s=75.0, failure=failure,
                             step=12), **changes})  # fmt: skip


def test_a_failure_names_rank_host_reason_last_lines_and_log(console, run, capsys):
    run.log(3, b"".join(b"line %d\n" % number for number in range(50)) + b"the cause")
    run.log(0, b"a victim\n")
    console.finish(failed())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == ("failed: rank 3 on n2 failed first: exit code 7 at step 12, after 1:15.")
    assert lines[1:-1] == [f"  | line {number}" for number in range(39, 50)] + ["  | the cause"]
    assert lines[-1] == "  log: runs/r/logs/rank-00003.log"


def test_a_rank_that_failed_in_silence(console, capsys):
    console.finish(failed(step=None))
    assert "exit code 7, after 1:15." in capsys.readouterr().err
    console.finish(failed(step=0))
    assert "at step 0" in (err := capsys.readouterr().err)
    assert "  | (it printed nothing)\n" in err


def test_an_mpirun_that_started_nothing_is_quoted(console, capsys):
    for number in range(300):
        console.launcher_output(b"line %d \xff" % number)
    console.launcher_output(b"   ")
    console.finish(failed(failure=None, unreported_ranks=(0, 1, 2, 3), exit_code=213, step=None))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "failed: mpirun ended before 4 of 4 ranks had started. mpirun said:"
    assert lines[1:-1] == [f"  | line {number} \ufffd" for number in range(288, 300)]
    assert lines[-1] == "  log: runs/r/logs/mpirun.log"


def test_a_known_cause_stands_in_place_of_mpiruns_guesses(console, capsys):
    console.launcher_output(b"this may be a firewall")
    console.finish(failed(failure=None, unreported_ranks=(3,)), ["n2: ssh fails: no route to host"])
    err = capsys.readouterr().err
    assert "before 1 of 4 ranks had started.\n  | n2: ssh fails: no route to host\n" in err
    assert "firewall" not in err


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (DONE, "done in 3.2 s; runs/r\n"),
        (Outcome("stopped", 130, 7325.0, stop_signal=2), "stopped by Ctrl-C after 2:02:05; runs/r"),
        (Outcome("stopped", 143, 1.0, stop_signal=15, step=0), "stopped by signal 15 at step 0"),
    ],
)
def test_how_it_ended(console, capsys, outcome, text):
    console.finish(outcome)
    assert text in capsys.readouterr().err


def step(number, **more):
    return {"event": "step", "step": number, **more}


def test_progress_of_rank_0_alone_and_the_figures_at_the_end(console, capsys):
    console.event(0, {"event": "run_started", "steps": 4})
    console.event(1, step(9, loss=9.0))
    console.event(0, step(1, loss=5.0, tokens_per_s=1234.5))
    console.event(0, step(4, loss=None, tokens_per_s=0.5))
    console.event(0, {"event": "eval", "step": 4, "val_loss": 4.25})
    console.finish(DONE)
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert lines[0] == "step 1/4  loss 5.0000  1,234 tokens/s"
    assert lines[1].startswith("step 4/4  loss 5.0000  0.5 tokens/s  eta 0.0 s")
    assert lines[2:] == [
        "step 4: validation loss 4.2500",
        "done in 3.2 s, loss 5.0000, validation loss 4.2500, 0.5 tokens/s; runs/r",
    ]
    assert "9.0" not in err


@pytest.mark.parametrize(
    "record",
    [
        step(1), step(None), step("three", loss="nan"), step(1, loss=[1], tokens_per_s="fast"),
        step(1.5, steps="many"), {"event": "eval"}, {}, {"event": None}, step(2, loss=True),
        step({"a": 1}, val_loss={}), step(10**30, steps=-1),
        pytest.param(
            step(1, tokens_per_s=10**400),
        ),
    ],
)  # fmt: skip
def test_whatever_a_foreign_program_reports_is_survived(console, record, capsys):
    console.event(0, {"event": "run_started", "steps": 3})
    console.event(0, record)
    console.finish(DONE)
    assert "done in" in capsys.readouterr().err


def test_nothing_of_ours_has_escape_codes(console, run, capsys):
    run.log(3, b"plain\n")
    console.header(1)
    console.warn("be careful")
    console.event(0, {"event": "run_started", "steps": 2})
    console.event(0, step(2, loss=1.0))
    console.finish(failed())
    out, err = capsys.readouterr()
    assert out == ""
    assert "warning: be careful" in err
    assert "\x1b" not in err


READER_LEFT = """
import sys
from pathlib import Path
from unittest.mock import Mock
from hpctrain.launch.console import RunConsole
sys.stdin.read()  # until the reader of our output has left
console = RunConsole(Mock(), Mock())
for _ in range(3):
    console.rank_output(0, "n1", "stdout", b"line\\n")
sys.exit(7)
"""


def test_the_exit_code_stays_when_the_reader_of_our_output_left():
    process = subprocess.Popen(
        [sys.executable, "-c", READER_LEFT],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.close()
    process.stdin.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=20), err) == (7, b"")


def test_events_shown_are_not_changed(console):
    record = step(1, loss=0.5)
    before = json.dumps(record)
    console.event(0, record)
    assert json.dumps(record) == before


def test_a_progress_bar_of_another_rank_costs_one_line(console, capsysbinary):
    for percent in range(20000):
        console.rank_output(1, "n1", "stderr", b"\r%5d/20000 [=====     ]" % percent)
    console.rank_output(1, "n1", "stderr", b"\rdone\r\n")
    err = capsysbinary.readouterr().err
    assert err == b"[rank 1 n1] done\n"


def test_a_long_line_without_an_end_is_shown_in_parts(console, capsysbinary):
    console.rank_output(1, "n1", "stderr", b"x" * 20000)
    assert capsysbinary.readouterr().err.startswith(b"[rank 1 n1] xxx")


def test_our_own_lines_stand_on_lines_of_their_own(console, capsysbinary):
    console.rank_output(0, "n1", "stderr", b"half a line")
    console.warn("careful")
    assert capsysbinary.readouterr().err == b"half a line\nwarning: careful\n"
