"""Where is a program that hangs? Its Python stacks, and what the kernel knows. Runs in the shim."""

from __future__ import annotations

import os
import signal
import time

from hpctrain.executor import Command, LocalExecutor
from hpctrain.launch.descendants import descendants
from hpctrain.launch.rank_life import process_state

STACKS_FD_VARIABLE = "HPCTRAIN_STACKS_FD"
STACKS_SIGNAL = signal.SIGUSR2
PY_SPY_TIMEOUT_S = 8.0
ANSWER_TIMEOUT_S = 2.0
STEADY_S = 0.2
"""Written line by line: an answer that has not grown for so long is whole."""
MOST_CHARACTERS = 200_000
LISTENS = b"listens\n"


def tell_stacks_on_signal() -> None:
    """Have this program write all threads' Python stacks for its shim, at SIGUSR2.

    Called by the trainer. `faulthandler` answers even while Python waits in C code.
    """
    import faulthandler

    descriptor, _, inode = os.environ.get(STACKS_FD_VARIABLE, "").partition(":")
    try:
        if os.fstat(int(descriptor)).st_ino == int(inode):
            faulthandler.register(STACKS_SIGNAL, file=int(descriptor), all_threads=True)
            os.write(int(descriptor), LISTENS)  # a handler of the program's own means another thing
    except (OSError, ValueError):
        pass  # outside a launch, or a wrapper closed it


def collect_stacks(pid: int, descriptor: int) -> str:
    """Return where a program is, in words; never fails, and takes seconds at most.

    Args:
        pid: the program; of a wrapper, such as a shell, its first Python below it is looked at.
        descriptor: the file that :func:`tell_stacks_on_signal` was given.
    """
    python = _find_python(pid)
    described = [_describe_process(each) for each in dict.fromkeys((pid, python))]
    return "\n".join([*described, _spy(python) or _ask(python, descriptor)])[:MOST_CHARACTERS]


def _find_python(pid: int) -> int:
    for each in (pid, *descendants(pid)):
        try:
            if os.path.basename(os.readlink(f"/proc/{each}/exe")).startswith("python"):
                return each
        except OSError:
            continue
    return pid


def _describe_process(pid: int) -> str:
    waits_in = _read(f"/proc/{pid}/wchan").strip("0\n")
    words = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
    waits = f", waits in the kernel's {waits_in}" if waits_in else ""
    return f"process {pid}, state {process_state(pid) or 'gone'}{waits}: {words}"


def _spy(pid: int) -> str:
    done = LocalExecutor().run(
        Command(("py-spy", "dump", "--nonblocking", "--pid", str(pid))), timeout_s=PY_SPY_TIMEOUT_S
    )
    return done.stdout if done.ok else ""


def _ask(pid: int, descriptor: int) -> str:
    """Ask the program itself, if it listens; the signal would end any other."""
    if os.fstat(descriptor).st_size == 0 or not _catches(pid, STACKS_SIGNAL):
        return "no Python stacks: py-spy is not installed, and the program does not tell them"
    if process_state(pid) == "T":
        return "no Python stacks: the program is stopped, and py-spy is not installed"
    before = size = os.fstat(descriptor).st_size
    try:
        os.kill(pid, STACKS_SIGNAL)
    except OSError:
        return "no Python stacks: the program has ended"
    now_s = grown_at_s = time.monotonic()
    give_up_at_s = now_s + ANSWER_TIMEOUT_S
    while now_s < give_up_at_s and (size == before or now_s < grown_at_s + STEADY_S):
        time.sleep(0.02)
        now_s = time.monotonic()
        if (now_size := os.fstat(descriptor).st_size) != size:
            size, grown_at_s = now_size, now_s
    text = os.pread(descriptor, MOST_CHARACTERS, before).decode(errors="replace")
    return text or "no Python stacks: the program did not answer"


def _catches(pid: int, number: int) -> bool:
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
