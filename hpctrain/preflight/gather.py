"""Ask every host of a plan at once, over ssh or here; what comes back is a fleet to be judged."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpctrain.executor import Command, Executor, LocalExecutor, SshExecutor, run_on_all
from hpctrain.launch.ssh_config import host_alias
from hpctrain.preflight.ask_node import MARK
from hpctrain.preflight.fleet import Answer
from hpctrain.preflight.task import NodeTask, task_as_json

# Beyond the slowest probe: ssh, and starting Python on a machine that is busy.
START_S = 20.0
# A rank's environment must be there before Python starts (PYTHONPATH), and must not stand in a
# command line, which everybody can read. So this reads it from stdin and then becomes the probe.
_BOOTSTRAP = """\
import json, os, sys
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
env = {**os.environ, **task["environ"]}
os.execve(sys.executable, [sys.executable, *sys.argv[1:], "-m", "hpctrain.preflight.ask_node"], env)
"""


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
) -> tuple[dict[str, dict[str, Answer]], dict[str, str]]:
    """Ask all hosts; return (probe → host → answer, host → why it could not be asked).

    Args:
        tasks: host → what it is asked.
        local: hosts that are this machine; they are asked without ssh.
        timeout_s: of the slowest probe.
        on_answer: called with each host that is done, from the thread that asked it.
    """
    here = executor or LocalExecutor()
    command = Command((python, "-c", _BOOTSTRAP, *python_options))

    def ask(host: str) -> dict[str, Any] | str:
        where: Executor = here
        if host not in local:
            where = SshExecutor(host_alias(host), tuple(ssh_options), here)
        stdin = json.dumps(task_as_json(tasks[host]))
        done = where.run(command, timeout_s=timeout_s + START_S, stdin=stdin)
        on_answer(host)
        for line in done.stdout.splitlines():
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        return _why_unasked(done.returncode, done.last_words, python)

    answers: dict[str, dict[str, Answer]] = {}
    unreachable: dict[str, str] = {}
    for host, answer in zip(tasks, run_on_all(ask, list(tasks)), strict=True):
        if isinstance(answer, str):
            unreachable[host] = answer
            continue
        for probe, value in answer.items():
            answers.setdefault(probe, {})[host] = Answer(value.get("value"), value.get("error", ""))
    return answers, unreachable


def _why_unasked(code: int, last_words: str, python: str) -> str:
    if code == 255:
        return f"ssh: {last_words}"
    if code in (126, 127):
        return f"no {python} there; the same Python environment must be on every host"
    return last_words


def this_python() -> str:
    return sys.executable
