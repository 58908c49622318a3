"""A run on a cluster whose network this machine is outside of: started on the head, by ssh.

Code and data go to every node; the run is started on the head apart from our connection, so that
it outlives it; its output is followed; results come back. Until they have, the cluster's directory
remembers the run, and `down` refuses.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from hpctrain.clusters.cloud.access import NodeAccess
from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterRecord
from hpctrain.clusters.sync import Project, fetch_folder, send_project
from hpctrain.clusters.unfetched import HeadRun, forget, pending_runs, remember
from hpctrain.errors import ClusterError, raise_all
from hpctrain.executor import Command, Completed, LocalExecutor, SshExecutor

WORK = "hpctrain-work"
GONE_WORDS = "ended without an exit code: it was killed, or its head was turned off"
# Started in a session of its own; what it leaves: its PID, with the boot and the moment that it
# began in, its output, its exit code.
# The last command alone goes to the background: a shell that waited for it would hold ssh. What a
# shell starts in the background ignores SIGINT, unless that is undone.
_START = (
    'cd "$1" && mkdir -p .hpctrain && rm -f ".hpctrain/$2.exit" ".hpctrain/$2.pid" || exit 1; '
    "setsid env --default-signal=INT,QUIT sh -c '"
    'echo "$(cat /proc/sys/kernel/random/boot_id) $(cut -d" " -f22 "/proc/$$/stat")" '
    '> ".hpctrain/$0.began"; echo $$ > ".hpctrain/$0.pid"; '
    '"$@"; echo $? > ".hpctrain/$0.exit"\' '
    '"$2" "${@:3}" > ".hpctrain/$2.log" 2>&1 < /dev/null &'
)
_FOLLOW = (
    'cd "$1"; for i in 1 2 3 4 5 6 7 8 9 10; do [ -s ".hpctrain/$2.pid" ] && break; sleep 0.2; '
    'done; tail -n +1 -F --pid="$(cat ".hpctrain/$2.pid")" ".hpctrain/$2.log" 2>/dev/null'
)
# Its exit code, "runs", or "gone" where it ended without one: killed, or with its machine. A PID
# alone tells nothing after a boot, for another process has it then.
_STATE = (
    'cd "$1/.hpctrain" 2>/dev/null || { echo gone; exit; }; '
    'now="$(cat /proc/sys/kernel/random/boot_id) '
    '$(cut -d" " -f22 "/proc/$(cat "$2.pid" 2>/dev/null)/stat" 2>/dev/null)"; '
    'if [ ! -s "$2.exit" ] && [ "$now" = "$(cat "$2.began" 2>/dev/null)" ]; then echo runs; '
    'elif [ -s "$2.exit" ]; then cat "$2.exit"; else echo gone; fi'
)
_SIGNAL = 'pkill -"$3" -P "$(cat "$1/.hpctrain/$2.pid")"'


def plan_head_command(python: str, arguments: Sequence[str], hostfile: str) -> tuple[str, ...]:
    """Return what starts the run on the head; pure.

    >>> plan_head_command("python", ["--np", "4"], "hosts")
    ('python', '-u', '-m', 'hpctrain', 'run', '--hosts', 'hosts', '--np', '4')
    """
    return (python, "-u", "-m", "hpctrain", "run", "--hosts", hostfile, *arguments)


def run_on_head(
    directory: ClusterDirectory,
    record: ClusterRecord,
    project: Project,
    run: HeadRun,
    arguments: Sequence[str],
    python: str,
) -> int:
    """Send, start, follow, fetch; return the run's exit code.

    Raises:
        ClusterError: a node did not get the files, the run did not start, or the connection broke
            while it went on.
    """
    access = NodeAccess(directory.ssh_config, LocalExecutor())
    nodes = [node.name for node in record.nodes]
    print(f"sending {len(project.paths)} files and folders to {len(nodes)} nodes", file=sys.stderr)
    send_project(access, nodes, project, project_folder(project))
    head = nodes[0]
    hostfile = ".hpctrain/hostfile"
    put = f'mkdir -p "$1/.hpctrain" && cat > "$1/{hostfile}"'
    text = directory.hostfile.read_text(encoding="utf-8")
    _must(access.run(head, "sh", "-c", put, "sh", run.work, stdin=text), head, "take the hostfile")
    remember(directory, run)
    words = plan_head_command(python, arguments, hostfile)
    started = access.run(head, "bash", "-c", _START, "bash", run.work, run.name, *words)
    _must(started, head, "start the run")
    follow(directory, head, run)
    state = ask_state(access, head, run)
    if state in ("", "runs"):
        raise ClusterError(
            f"{head}: the connection ended while the run may go on. "
            f"Later: hpctrain cluster fetch --name {directory.name}"
        )
    for problem in fetch_results(directory, record, run):
        print(f"warning: {problem}", file=sys.stderr)
    if state == "gone":
        raise ClusterError(f"{run.name}: {GONE_WORDS}.")
    return int(state)


def ask_state(access: NodeAccess, head: str, run: HeadRun) -> str:
    """Return a run's exit code, "runs", "gone" (it ended without one) or "" (no answer)."""
    done = access.run(head, "sh", "-c", _STATE, "sh", run.work, run.name)
    return done.stdout.strip() if done.ok else ""


def follow(directory: ClusterDirectory, head: str, run: HeadRun) -> None:
    """Show the run's output until it ends; a Ctrl-C goes to the run, once each."""
    ssh = SshExecutor(head, ("-F", str(directory.ssh_config)))
    command = ssh.command_for(Command(("sh", "-c", _FOLLOW, "sh", run.work, run.name)))
    process = LocalExecutor().start(command, stdout=sys.stdout.fileno(), stderr=2)
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.set())
    try:
        while process.poll() is None:
            if pressed.is_set():
                pressed.clear()
                ssh.run(
                    Command(("sh", "-c", _SIGNAL, "sh", run.work, run.name, "INT")), timeout_s=30
                )
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGINT, before)


def fetch_results(directory: ClusterDirectory, record: ClusterRecord, run: HeadRun) -> list[str]:
    """Bring a run's directory back, and every node's share of checkpoints; forget it then.

    Returns:
        What could not be fetched; the run is then remembered.
    """
    access = NodeAccess(directory.ssh_config, LocalExecutor())
    source = f"{run.work}/{run.runs_dir}/{run.name}"
    problems = []
    for node in record.nodes:
        if access.run(node.name, "test", "-d", source).returncode == 1:
            continue  # nothing of the run is on this node's own disk
        if problem := fetch_folder(access, node.name, source, Path(run.target)):
            problems.append(problem)
    if not problems:
        forget(directory, run)
    return problems


def fetch_pending(directory: ClusterDirectory, record: ClusterRecord) -> list[str]:
    """Bring back what is left on a cluster of runs that have ended; return what was done.

    Raises:
        ClusterError: a run still goes on, or something could not be fetched.
    """
    access = NodeAccess(directory.ssh_config, LocalExecutor())
    lines, errors = [], []
    for run in pending_runs(directory):
        state = ask_state(access, record.nodes[0].name, run)
        if state in ("", "runs"):
            why = "it still runs" if state else "its head cannot be asked"
            errors.append(f"{run.name}: {why}; expected that it has ended. Try again later.")
        elif problems := fetch_results(directory, record, run):
            errors += problems
        else:
            how = GONE_WORDS if state == "gone" else f"exit code {state}"
            lines.append(f"{run.name}: {how}, fetched to {run.target}")
    raise_all(ClusterError, errors)
    return lines or ["nothing to fetch"]


def _must(done: Completed, node: str, what: str) -> None:
    if not done.ok:
        raise ClusterError(f"{node}: cannot {what}: {done.last_words}.")


def project_folder(project: Project) -> str:
    """Return where a project is on the nodes, relative to their home."""
    return f"{WORK}/{project.root.name or 'project'}"


def working_folder(project: Project) -> str:
    """Return where a run starts there: where the person stands here."""
    base = project_folder(project)
    return base if project.folder == Path(".") else f"{base}/{project.folder}"
