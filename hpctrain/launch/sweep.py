"""Leave nothing behind: end what is left of an attempt, here and on every host that answers."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from typing import NamedTuple

from hpctrain.executor import Command, Executor, LocalExecutor, SshExecutor, run_on_all
from hpctrain.launch.environment import plan_import_path
from hpctrain.launch.plan import ATTEMPT_VARIABLE

SWEEP_TIMEOUT_S = 15.0

# Every rank carries the attempt's name in its environment, and so does all that it started.
# Plain sh: it must work on a host whose Python environment is broken.
_SCRIPT = """\
name=$1 patience_s=${2:-0}
find_left() {
  for dir in /proc/[0-9]*; do
    pid=${dir#/proc/}
    [ "$pid" = "$$" ] && continue
    tr '\\0' '\\n' < "$dir/environ" 2>/dev/null | grep -qxF "$name" && echo "$pid"
  done
}
left=$(find_left)
while [ -n "$left" ] && [ "$patience_s" -gt 0 ]; do
  sleep 1
  patience_s=$((patience_s - 1))
  left=$(find_left)
done
for pid in $left; do
  words=$(tr '\\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | cut -c1-60)
  kill -9 "$pid" 2>/dev/null && echo "$pid $words"
done
exit 0
"""


class Sweep(NamedTuple):
    """A line for each host that needed it or could not be reached, and the hosts that could not."""

    lines: list[str]
    missed: tuple[str, ...]


def run_sweep(
    attempt_id: str,
    remote_hosts: Sequence[str],
    ssh_options: Sequence[str],
    local: Executor | None = None,
    patience_s: int = 0,
) -> Sweep:
    """Kill what still carries the attempt's name, here and on other hosts.

    Args:
        remote_hosts: names as ssh knows them.
        ssh_options: as mpirun's ssh gets them.
        patience_s: how long what still runs may take to end by itself.
    """
    here = local or LocalExecutor()
    patience = (str(patience_s),) if patience_s else ()
    command = Command(("sh", "-s", "--", f"{ATTEMPT_VARIABLE}={attempt_id}", *patience))
    timeout_s = SWEEP_TIMEOUT_S + patience_s

    def sweep(host: str | None) -> tuple[str, bool]:
        where: Executor = SshExecutor(host, tuple(ssh_options), here) if host else here
        done = where.run(command, timeout_s=timeout_s, stdin=_SCRIPT)
        if not done.ok:
            return f"{host or 'this machine'}: could not be swept: {done.last_words}", False
        killed = done.stdout.splitlines()
        what = "; ".join(killed[:3])
        line = f"{host or 'this machine'}: ended {len(killed)} left behind ({what})"
        return line if killed else "", True

    found = run_on_all(sweep, [None, *remote_hosts])
    return Sweep(
        lines=[line for line, _ in found if line],
        missed=tuple(h for h, (_, done) in zip(remote_hosts, found[1:], strict=True) if not done),
    )


def remove_session_folders(mpirun_pid: int) -> None:
    """Remove what an Open MPI that was killed has left in TMPDIR.

    The folders are named by mpirun's PID. Where that PID comes again (soon, in a container), Open
    MPI 5.0.11 finds them and ends with "The PMIx server's listener thread failed to start".
    """
    base = os.environ.get("TMPDIR") or "/tmp"
    host = socket.gethostname()
    version_4 = f"ompi.{host}.{os.getuid()}/pid.{mpirun_pid}"
    for folder in (f"ompi.{mpirun_pid}", version_4):
        shutil.rmtree(os.path.join(base, folder), ignore_errors=True)


def diagnose_hosts(
    remote_hosts: Sequence[str], ssh_options: Sequence[str], python: str
) -> list[str]:
    """Say for each remote host why ranks could not start there, as far as ssh can tell."""
    found = find_healthy_hosts(remote_hosts, ssh_options, python)
    return [f"{host}: {reason}" for host, reason in found.items() if reason]


def find_healthy_hosts(
    hosts: Sequence[str], ssh_options: Sequence[str], python: str
) -> dict[str, str]:
    """Ask remote hosts whether ranks could start there.

    Returns:
        For each host why not; "" for one that is healthy.
    """
    command = Command((python, "-c", "import hpctrain.launch.shim"), plan_import_path(os.environ))

    def ask(host: str) -> str:
        done = SshExecutor(host, tuple(ssh_options)).run(command, timeout_s=SWEEP_TIMEOUT_S)
        if done.ok:
            return ""
        by_hand = " ".join(["ssh", *ssh_options, host])
        if done.returncode in (124, 255):
            return f"ssh fails: {done.last_words}. Try it by hand: {by_hand}"
        if done.returncode in (126, 127):
            return f"no {python} there. The same Python environment must be on every host."
        return f"hpctrain cannot be imported by {python} there: {done.last_words}"

    return dict(zip(hosts, run_on_all(ask, hosts), strict=True))
