"""The only module that starts processes: here, on another host over ssh, or (in tests) nowhere.

A command is a value, ``Command(argv, env)``, never a shell string. Quoting happens in one
place, :func:`render_command`, for what people copy and for what ssh hands to a remote shell.

The rank shim imports this module, so it imports little: named tuples, no dataclasses.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

SSH_CONNECT_TIMEOUT_S = 5
MAX_PARALLEL_HOSTS = 64
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


# For Ctrl-C in run_on_all: thread → what it waits for, and threads that are to start nothing more.
_running: dict[int, subprocess.Popen[str]] = {}
_stopped: set[int] = set()


class Command(NamedTuple):
    """What to start: the argument vector and the variables it gets on top of ours."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = MappingProxyType({})


class Completed(NamedTuple):
    """What a command left behind. ``returncode`` is 124 where it ran out of time, 127 where
    the program does not exist and -n where signal n ended it."""

    command: Command
    returncode: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.returncode == 0

    @property
    def last_words(self) -> str:
        """The last line that is not blank, of stderr if it has one, else of stdout."""
        lines = [line for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit code {self.returncode}, no output"


def render_command(command: Command) -> str:
    """Return the command as one line for a POSIX shell.

    >>> render_command(Command(("echo", "two words"), {"A": "1 2"}))
    "env 'A=1 2' echo 'two words'"
    >>> render_command(Command(("true",)))
    'true'
    """
    import shlex

    assignments = [f"{name}={value}" for name, value in command.env.items()]
    return shlex.join([*(["env", *assignments] if assignments else []), *command.argv])


class Executor(Protocol):
    """Where commands run. A fake stands at this seam and nowhere else."""

    def run(self, command: Command, *, timeout_s: float, stdin: str = "") -> Completed:
        """Run to the end, or for `timeout_s`; never raise for what the command does."""
        ...


class LocalExecutor:
    """Run commands on this machine."""

    def run(self, command: Command, *, timeout_s: float, stdin: str = "") -> Completed:
        try:
            process = subprocess.Popen(
                command.argv,
                env={**os.environ, **command.env},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # no terminal to ask for a password on
            )
        except OSError as missing:
            return Completed(command, 127, "", f"{command.argv[0]}: {missing.strerror}")
        with process:
            _running[threading.get_ident()] = process
            try:
                if threading.get_ident() in _stopped:
                    timeout_s = 0.0
                out, err = process.communicate(stdin, timeout=timeout_s)
            except subprocess.TimeoutExpired as late:
                process.kill()
                process.wait()
                out, err = (_as_text(late.stdout), _as_text(late.stderr))
                return Completed(command, 124, out, err or f"no answer within {timeout_s:g} s")
            except BaseException:
                process.kill()
                raise
            finally:
                _running.pop(threading.get_ident(), None)
        return Completed(command, process.returncode, out, err)

    def start(
        self,
        command: Command,
        *,
        stdout: int,
        stderr: int,
        cwd: Path | None = None,
        parent_death_signal: int | None = None,
        only_env: Mapping[str, str] | None = None,
        new_session: bool = True,
        close_fds: bool = True,
    ) -> subprocess.Popen[bytes]:
        """Start a command that is watched while it runs.

        Args:
            stdout: as for :class:`subprocess.Popen`; likewise `stderr`.
            parent_death_signal: what the kernel sends to the command when we die.
            only_env: the whole environment, in place of ours.
            new_session: detach it from our terminal and process group.
            close_fds: False hands down what we were handed.

        Raises:
            OSError: the program cannot be started.
        """
        environ = os.environ if only_env is None else only_env
        before_exec = None
        if parent_death_signal is not None:
            before_exec = functools.partial(_prctl, PR_SET_PDEATHSIG, parent_death_signal)
        return subprocess.Popen(
            command.argv,
            env={**environ, **command.env},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            start_new_session=new_session,
            close_fds=close_fds,
            preexec_fn=before_exec,
        )


class SshExecutor(NamedTuple):
    """Run commands on another host, without ever asking a question.

    The remote login shell parses the line that ssh sends, so the command is quoted once for it.
    """

    destination: str
    ssh_options: tuple[str, ...] = ()
    local: Executor = LocalExecutor()

    def command_for(self, command: Command) -> Command:
        """Return the ssh command that runs `command` there."""
        options = ("-o", "BatchMode=yes", "-o", f"ConnectTimeout={SSH_CONNECT_TIMEOUT_S}")
        line = render_command(command)
        return Command(("ssh", *options, *self.ssh_options, "--", self.destination, line))

    def run(self, command: Command, *, timeout_s: float, stdin: str = "") -> Completed:
        done = self.local.run(self.command_for(command), timeout_s=timeout_s, stdin=stdin)
        return Completed(command, done.returncode, done.stdout, done.stderr)


class RecordingExecutor:
    """Remember commands and answer from a table of patterns: the one fake, for tests.

    Args:
        answers: regular expression over the rendered command → (exit code, stdout, stderr);
            the first that matches counts.
    """

    def __init__(self, answers: Mapping[str, tuple[int, str, str]] | None = None) -> None:
        self.answers = dict(answers or {})
        self.commands: list[Command] = []

    def run(self, command: Command, *, timeout_s: float, stdin: str = "") -> Completed:
        import re

        self.commands.append(command)
        line = render_command(command)
        for pattern, (code, out, err) in self.answers.items():
            if re.search(pattern, line):
                return Completed(command, code, out, err)
        return Completed(command, 127, "", f"{command.argv[0]}: no such program (recorded)")


def become(command: Command) -> NoReturn:
    """Let a command take this process's place, terminal and all.

    Raises:
        OSError: the program cannot be started.
    """
    os.execvpe(command.argv[0], command.argv, {**os.environ, **command.env})


def run_on_all(
    work: Callable[[_Item], _Result], items: Sequence[_Item], limit: int = MAX_PARALLEL_HOSTS
) -> list[_Result]:
    """Do `work` for every item at once, at most `limit` at a time; results in the same order."""
    if len(items) <= 1:
        return [work(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor  # 10 ms that a local launch need not pay

    threads: set[int] = set()
    pool = ThreadPoolExecutor(
        min(limit, len(items)), initializer=lambda: threads.add(threading.get_ident())
    )
    try:
        return list(pool.map(work, items))
    except BaseException:
        # The pool's end waits for its threads, and those for what they have started.
        pool.shutdown(wait=False, cancel_futures=True)
        _stopped.update(threads)
        for thread in threads:
            if process := _running.get(thread):
                process.kill()
        raise
    finally:
        pool.shutdown()
        _stopped.difference_update(threads)


class Forked(NamedTuple):
    """What work in a process of its own left: its value, or why there is none."""

    value: Any = None
    error: str = ""


def run_forked(works: Mapping[str, tuple[Callable[[], object], float]]) -> dict[str, Forked]:
    """Run pieces of work at once, each in a fork of this process and for its own time at most.

    One that hangs (on a dead file system, in a driver) or crashes costs its own answer alone.
    Only for a process without threads.

    Args:
        works: name → the work, which returns something that JSON can hold, and its limit (s).
    """
    started_s = time.monotonic()
    running = {name: _fork(work) for name, (work, _) in works.items()}
    texts = _read_all(
        {reader: (pid, started_s + works[name][1]) for name, (pid, reader) in running.items()}
    )
    answers: dict[str, Forked] = {}
    for name, (pid, reader) in running.items():
        text = texts[reader]
        if text is None:
            answers[name] = Forked(error=f"no answer within {works[name][1]:g} s")
            with suppress(ChildProcessError):  # in an uninterruptible call it will not end yet
                os.waitpid(pid, os.WNOHANG)
            continue
        _, status = os.waitpid(pid, 0)
        answers[name] = _read_forked(text, os.waitstatus_to_exitcode(status))
    return answers


def _fork(work: Callable[[], object]) -> tuple[int, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    try:
        os.setpgid(0, 0)
        die_with_parent()  # Ctrl-C ends the parent alone
        os.close(reader)
        try:
            answer = {"value": work()}
        except Exception as problem:  # whatever it is, it is the answer
            first = (str(problem).strip().splitlines() or [""])[0]
            answer = {"error": f"{type(problem).__name__}: {first}"}
        with os.fdopen(writer, "w", encoding="utf-8") as pipe:
            json.dump(answer, pipe)
    finally:
        os._exit(0)


def _read_all(writers: Mapping[int, tuple[int, float]]) -> dict[int, str | None]:
    """Return all that each pipe gives until it is closed, None where that takes too long.

    All are read at once, for whoever writes into a full pipe waits; then they are closed.

    Args:
        writers: pipe → the process that writes into it, which is killed when its time is over,
            by time.monotonic().
    """
    parts: dict[int, list[bytes]] = {reader: [] for reader in writers}
    texts: dict[int, str | None] = {}
    with selectors.DefaultSelector() as selector:
        for reader in writers:
            selector.register(reader, selectors.EVENT_READ)

        def close(reader: int, text: str | None) -> None:
            selector.unregister(reader)
            os.close(reader)
            texts[reader] = text

        while left := [reader for reader in writers if reader not in texts]:
            next_s = min(writers[reader][1] for reader in left)
            for key, _ in selector.select(max(0.0, next_s - time.monotonic())):
                part = os.read(key.fd, 1 << 16)
                parts[key.fd].append(part)
                if not part:
                    close(key.fd, b"".join(parts[key.fd]).decode("utf-8", "replace"))
            for reader in left:
                pid, ends_by_s = writers[reader]
                if reader not in texts and time.monotonic() >= ends_by_s:
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(pid, signal.SIGKILL)
                    close(reader, None)
    return texts


def _read_forked(text: str, code: int) -> Forked:
    try:
        answer = json.loads(text)
    except ValueError:
        ended = f"signal {-code}" if code < 0 else "no word"
        return Forked(error=f"ended with {ended}")
    return Forked(answer.get("value"), answer.get("error", ""))


def with_path(environ: Mapping[str, str], folders: Iterable[str]) -> str:
    """Return PATH with `folders` in front, each once."""
    rest = [part for part in environ.get("PATH", os.defpath).split(os.pathsep) if part]
    front = list(dict.fromkeys(folders))
    return os.pathsep.join([*front, *(part for part in rest if part not in front)])


def _as_text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that we can find it."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it ends."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)
