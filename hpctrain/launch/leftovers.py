"""What may be left of an attempt that has ended: end it, and say how long the rest can write.

Two attempts at once would write into the same checkpoints. A host that cannot be reached cannot be
swept; ranks there end by themselves, launch.cut_off_s after they last heard of the launcher's host.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpctrain.facts import Facts
from hpctrain.launch.attempts import find_unfinished
from hpctrain.launch.channel import HEARTBEAT_INTERVAL_S
from hpctrain.launch.prepare import Prepared
from hpctrain.launch.ssh_config import host_alias
from hpctrain.launch.sweep import run_sweep
from hpctrain.rundir import RunDirectory, read_events


@dataclass(slots=True, kw_only=True)
class Leftovers:
    """What may be left of one attempt.

    Args:
        remote_hosts: of its ranks, as ssh knows them.
        writers: those of them whose ranks may name, or remove, checkpoints.
        writes_for_s: how long a rank that cannot be reached may write, once it is cut off.
        since_s: when the attempt had ended at the latest (monotonic): who is cut off was so then.
        patience_s: how long its ranks may take to end by themselves before they are ended.
        is_swept: whether all hosts were asked.
        missed: hosts that could not be swept.
    """

    attempt_id: str
    remote_hosts: tuple[str, ...]
    ssh_options: tuple[str, ...]
    writers: frozenset[str]
    writes_for_s: float
    since_s: float | None = None
    patience_s: int = 0
    is_swept: bool = False
    missed: tuple[str, ...] = ()

    def sweep(self, say: Callable[[str], None]) -> None:
        """End what is left on every host that can be reached, once."""
        if self.is_swept:
            return
        if self.since_s is None:
            self.since_s = time.monotonic()
        patience_s, self.patience_s = self.patience_s, 0  # who breaks it off has none left
        swept = run_sweep(
            self.attempt_id, self.remote_hosts, self.ssh_options, patience_s=patience_s
        )
        self.is_swept, self.missed = True, swept.missed
        for line in swept.lines:
            say(line)

    def wait_s(self) -> tuple[float, str]:
        """Return for how long from now a rank that was missed may still write, and why."""
        missed = [host for host in self.missed if host in self.writers]
        if not missed or self.since_s is None:
            return 0.0, ""
        left_s = self.since_s + self.writes_for_s - time.monotonic()
        return left_s, (
            f"waiting {left_s:.0f} s for {', '.join(missed)}: a rank there may write checkpoints "
            "until it has noticed that it is cut off (launch.cut_off_s, launch.grace_s)"
        )


def leftovers_of(
    attempt_id: str, hosts: Sequence[str], facts: Facts, prepared: Prepared,
    ssh_options: tuple[str, ...],
) -> Leftovers:  # fmt: skip
    """Return what may be left of an attempt.

    Args:
        hosts: of its ranks, rank 0's first.
    """
    config = prepared.config
    remote = {host: host_alias(host) for host in hosts if not facts.is_launcher(host)}
    # What other ranks write lies under their own attempt's name until rank 0 has named it a
    # checkpoint. Of a program of the user's nobody knows.
    writers = hosts[:1] if prepared.is_trainer else hosts
    return Leftovers(
        attempt_id=attempt_id,
        remote_hosts=tuple(remote.values()),
        ssh_options=ssh_options,
        writers=frozenset(remote[host] for host in writers if host in remote),
        writes_for_s=config.launch.cut_off_s + config.launch.grace_s + HEARTBEAT_INTERVAL_S,
    )


def find_earlier_leftovers(
    facts: Facts, prepared: Prepared, run: RunDirectory, say: Callable[[str], None]
) -> Leftovers | None:
    """Return what may be left of an attempt of another launcher: it died, or has just given up.

    The attempt's hosts are asked by its own ssh configuration, which knows users and ports of hosts
    that the new plan may lack: so before the new plan's is written.
    """
    launch, now_s = prepared.config.launch, time.time()
    recent_s = launch.cut_off_s + launch.grace_s + HEARTBEAT_INTERVAL_S
    found = find_unfinished(read_events(run.path), failed_since_s=now_s - recent_s)
    if found is None:
        return None
    own = run.path / "ssh_config"
    options = ("-F", str(own)) if own.exists() else ()
    left = leftovers_of(found.attempt_id, found.hosts, facts, prepared, options)
    if found.ended_at_s is None:
        say(f"attempt {found.number} has no end: waiting for what may be left of it")
        left.patience_s = math.ceil(launch.grace_s) + 2
        return left
    left.since_s = time.monotonic() - max(0.0, now_s - found.ended_at_s)
    return left if left.writers else None  # its own launcher has ended the others
