"""Ask every host of a plan at once, over ssh or here; what comes back is a fleet to be judged."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hpctrain.executor import Command, Completed, Executor, LocalExecutor, SshExecutor, run_on_all
from hpctrain.launch.ssh_config import host_alias
from hpctrain.preflight.ask_node import BEGAN_VARIABLE, MARK
from hpctrain.preflight.contact import KEPT_WORDS, Contact
from hpctrain.preflight.fleet import Answer
from hpctrain.preflight.task import NodeTask, task_as_json

# Beyond the slowest probe: ssh, and starting Python on a machine that is busy.
START_S = 20.0
# A rank's environment must be there before Python starts (PYTHONPATH), and must not stand in a
# command line, which everybody can read. So this reads it from stdin and then becomes the probe.
_BOOTSTRAP = f"""\
import json, os, sys, time
began = repr(time.monotonic())
text = sys.stdin.read()
task = json.loads(text)
fd = os.memfd_create("task", 0)
os.write(fd, text.encode())
os.lseek(fd, 0, 0)
os.dup2(fd, 0)
try:
    os.chdir(task["cwd"])
except OSError:
    pass  # as mpirun: ranks then start at home
env = {{**os.environ, **task["environ"], "{BEGAN_VARIABLE}": began}}
os.execve(sys.executable, [sys.executable, *sys.argv[1:], "-m", "hpctrain.preflight.ask_node"], env)
"""
# One line: csh knows no newline in quotes, and takes an exclamation mark for an old command.
BOOTSTRAP_WORD = f"exec({_BOOTSTRAP!r})"


class Gathered(NamedTuple):
    """What asking brought.

    Args:
        answers: probe → host → answer.
        unreachable: host → why it could not be asked.
        contacts: host → how asking it went.
    """

    answers: dict[str, dict[str, Answer]]
    unreachable: dict[str, str]
    contacts: dict[str, Contact]


def ask_hosts(
    tasks: Mapping[str, NodeTask],
    local: frozenset[str],
    ssh_options: Sequence[str],
    python: str,
    *,
    python_options: Sequence[str] = (),
    timeout_s: float,
    executor: Executor | None = None,
    on_answer: Callable[[str], None] = lambda host: None,
) -> Gathered:
    """Ask all hosts at once.

    Args:
        tasks: host → what it is asked.
        local: hosts that are this machine; they are asked without ssh.
        timeout_s: of the slowest probe.
        on_answer: called with each host that is done, from the thread that asked it.
    """
    here = executor or LocalExecutor()
    command = Command((python, "-c", BOOTSTRAP_WORD, *python_options))

    def ask(host: str) -> tuple[dict[str, Any] | None, Contact]:
        where: Executor = here
        if host not in local:
            where = SshExecutor(host_alias(host), tuple(ssh_options), here)
        stdin = json.dumps(task_as_json(tasks[host]))
        began_s = time.time()
        done = where.run(command, timeout_s=timeout_s + START_S, stdin=stdin)
        answer, contact = read_answer(done, began_s, time.time())
        on_answer(host)
        return answer, contact

    gathered = Gathered({}, {}, {})
    for host, (answer, contact) in zip(tasks, run_on_all(ask, list(tasks)), strict=True):
        gathered.contacts[host] = contact
        if answer is None:
            gathered.unreachable[host] = _why_unasked(contact, python)
            continue
        for probe, value in answer.items():
            each = Answer(value.get("value"), value.get("error", ""))
            gathered.answers.setdefault(probe, {})[host] = each
    return gathered


def read_answer(
    done: Completed, began_s: float, ended_s: float
) -> tuple[dict[str, Any] | None, Contact]:
    """Return what a host answered, None for nothing, and how it went."""
    noise, mark, rest = done.stdout.partition(MARK)
    answer, spent_s = None, None
    if mark:
        try:
            read = json.loads(rest.partition("\n")[0])
            answer, spent_s = read["answers"], read["spent_s"]
        except (ValueError, KeyError, TypeError):
            pass  # cut off while it was sent
    contact = Contact(
        returncode=done.returncode,
        words=(done.stderr or done.stdout)[-KEPT_WORDS:],
        noise=noise.strip()[:KEPT_WORDS] if mark else "",
        began_s=began_s,
        ended_s=ended_s,
        spent_s=spent_s,
    )
    return answer, contact


def _why_unasked(contact: Contact, python: str) -> str:
    if contact.returncode == 255:
        return f"ssh: {contact.last_words.removeprefix('ssh: ')}"
    if contact.returncode in (126, 127):
        return f"no {python} there; the same Python environment must be on every host"
    return contact.last_words


def this_python() -> str:
    return sys.executable
