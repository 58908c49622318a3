"""Commands are values: quoted in one place, never through a shell here."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.executor import (
    Command,
    LocalExecutor,
    RecordingExecutor,
    SshExecutor,
    render_command,
    run_forked,
    run_on_all,
)

HOSTILE = ["; echo owned", "$(id)", "`id`", "a b", "'", '"', "\n", "*", "-x", "é", "\\"]


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_words_reach_the_program_as_they_are(word):
    done = LocalExecutor().run(Command(("printf", "%s", word)), timeout_s=5)
    assert done.stdout == word
    line = render_command(Command(("printf", "%s", word), {"A": word}))
    done = LocalExecutor().run(Command(("sh", "-c", line)), timeout_s=5)
    assert done.stdout == word


@given(st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), min_size=1))
def test_rendering_is_undone_by_a_shell(words):
    assert shlex.split(render_command(Command(tuple(words)))) == words


def test_ssh_quotes_once_for_the_remote_shell_and_never_asks():
    recorder = RecordingExecutor({"^ssh": (0, "ok", "")})
    ssh = SshExecutor("node1", ("-F", "my config"), recorder)
    assert ssh.run(Command(("echo", "a b; c")), timeout_s=1).stdout == "ok"
    argv = recorder.commands[0].argv
    assert argv[-2:] == ("node1", "echo 'a b; c'")
    assert argv[-5:-3] == ("-F", "my config")
    assert "BatchMode=yes" in argv


def test_a_missing_program_and_a_late_one_are_answers():
    executor = LocalExecutor()
    missing = executor.run(Command(("no-such-program-anywhere",)), timeout_s=1)
    assert missing.returncode == 127
    assert "no-such-program-anywhere" in missing.last_words
    late = executor.run(Command(("sleep", "5")), timeout_s=0.05)
    assert late.returncode == 124
    assert "0.05 s" in late.last_words


def test_standard_input_is_never_a_terminal():
    assert LocalExecutor().run(Command(("cat",)), timeout_s=5, stdin="text").stdout == "text"


def test_results_keep_the_order_of_the_items():
    assert run_on_all(lambda n: n * n, range(100), limit=7) == [n * n for n in range(100)]


INTERRUPTED = """
import os
from hpctrain.executor import Command, LocalExecutor, run_on_all

def work(number):
    os.write(1, b"begun\\n")  # whole: print() of two threads can mix text and line end
    for _ in range(2):  # the second is not waited for either
        LocalExecutor().run(Command(("sleep", "600")), timeout_s=600)

try:
    run_on_all(work, range(4), limit=2)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_ctrl_c_ends_what_was_started_on_all():
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True
    )
    assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert out == "stopped\n"


FORKING = """
import os, sys, time
from hpctrain.executor import run_forked
def work():
    print(os.getpid(), flush=True)
    time.sleep(600)
run_forked({"waits": (work, 600.0)})
"""


def test_a_long_answer_is_read_while_another_is_waited_for(tmp_path):
    pid_file = tmp_path / "pid"

    def wait_for_the_other():
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            if pid_file.exists() and (pid := pid_file.read_text()) and has_ended(pid):
                return "it could hand in its answer"
            time.sleep(0.01)
        return "it never could"

    def answer_at_length():
        pid_file.write_text(str(os.getpid()))
        return "x" * 300_000  # more than a pipe holds

    works = {"waits": (wait_for_the_other, 60.0), "long": (answer_at_length, 60.0)}
    answers = run_forked(works)
    assert list(answers) == ["waits", "long"]
    assert answers["waits"] == ("it could hand in its answer", "")
    assert answers["long"] == ("x" * 300_000, "")


def test_forked_work_has_its_own_time_and_is_then_ended(tmp_path):
    pid_file = tmp_path / "pid"

    def hang():
        pid_file.write_text(str(os.getpid()))
        time.sleep(600)

    answers = run_forked({"hangs": (hang, 1.0), "works": (lambda: 7, 60.0)})
    assert answers == {"hangs": (None, "no answer within 1 s"), "works": (7, "")}
    if pid_file.exists():  # not where a busy machine did not let it begin
        deadline_s = time.monotonic() + 30
        while not has_ended(pid_file.read_text()):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


def has_ended(pid):
    """Return whether a process is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_forked_work_ends_with_the_process_that_wants_it():
    with subprocess.Popen([sys.executable, "-c", FORKING], stdout=subprocess.PIPE) as parent:
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline_s = time.monotonic() + 30
    while not has_ended(worker):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
