"""Are the nodes ready? Ask them over ssh until they are, one has failed, or the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpctrain.clusters.cloud.access import NodeAccess
from hpctrain.clusters.provider import Console
from hpctrain.errors import ClusterError
from hpctrain.executor import run_on_all

STATE_FOLDER = "/var/lib/hpctrain"  # prepare_node.sh writes there
POLL_S = 5.0
# Apart from our connection: it takes minutes. What it leaves is looked at as ever.
_AGAIN = (
    f"sudo -n rm -f {STATE_FOLDER}/failed && (sudo -n setsid /usr/local/sbin/hpctrain-prepare-node "
    "> /dev/null 2>&1 < /dev/null &)"
)
_LOOK = f"cd {STATE_FOLDER} 2>/dev/null && {{ [ -e ready ] && echo ready || cat failed; }} || :"


@dataclass(frozen=True, slots=True)
class BootState:
    """How far a node is: "unreachable", "booting", "ready" or "failed"; `detail` says why."""

    state: str
    detail: str = ""


def wait_for_nodes(
    access: NodeAccess,
    nodes: Sequence[str],
    timeout_s: float,
    console: Console,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return when every node answers over ssh and has finished its set-up.

    A set-up that had failed before is begun again, once.

    Raises:
        ClusterError: a node's set-up failed, or not all were ready in time; says which, and why.
    """
    begin_s = clock()
    first = True
    states = dict.fromkeys(nodes, BootState("unknown"))
    while True:
        pending = [name for name in nodes if states[name].state != "ready"]
        found = run_on_all(lambda name: look_at_node(access, name), pending)
        for name, now in zip(pending, found, strict=True):
            if now.state != states[name].state:
                console.say(f"  {name}: {now.state} after {clock() - begin_s:.0f} s")
            states[name] = now
            if first and now.state == "failed":  # left by an `up` before this one
                console.say(f"  {name}: its set-up failed before; it is done again")
                access.run(name, "sh", "-c", _AGAIN)
                states[name] = BootState("booting")
        first = False
        failed = [name for name in nodes if states[name].state == "failed"]
        if failed:
            raise ClusterError(
                *(f"{name}: its set-up failed: {states[name].detail}" for name in failed)
            )
        if all(state.state == "ready" for state in states.values()):
            return
        if clock() - begin_s > timeout_s:
            raise ClusterError(*not_ready(states, timeout_s))
        sleep(POLL_S)


def look_at_node(access: NodeAccess, name: str) -> BootState:
    """Return how far a node is."""
    done = access.run(name, "sh", "-c", _LOOK)
    if not done.ok:
        return BootState("unreachable", done.last_words)
    if done.stdout.strip() == "ready":
        return BootState("ready")
    text = " ".join(done.stdout.split())
    return BootState("failed", text) if text else BootState("booting")


def not_ready(states: dict[str, BootState], timeout_s: float) -> list[str]:
    """Return what to say of nodes that were not ready in time."""
    advice = {
        "unreachable": "Does ssh_from_cidrs hold this machine's public address?",
        "booting": "See /var/log/hpctrain-prepare.log and /var/log/cloud-init-output.log there, "
        "or wait longer with boot_timeout_s.",
    }
    return [
        f"{name}: not ready within {timeout_s:g} s, got {each.state}"
        f"{f' ({each.detail})' if each.detail else ''}; expected ready. {advice[each.state]}"
        for name, each in states.items()
        if each.state != "ready"
    ]
