"""Can hosts log in to each other? Each tries the next two in a ring, not every pair."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpctrain.executor import Command, LocalExecutor, SshExecutor, run_on_all
from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.fleet import Fleet, not_asked
from hpctrain.preflight.ssh_words import ANSWER, SshTarget, broken_at, parse_ssh_words
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, Verdict

CODE = "host-to-host"
SSH_TIMEOUT_S = 12.0


def look_at_neighbours(task: NodeTask) -> list[dict[str, Any]]:
    """Log in to the next hosts of the ring, as a launch tree would, with this host's own ssh."""

    def visit(peer: dict[str, Any]) -> dict[str, Any]:
        options = [*(("-l", peer["user"]) if peer["user"] else ())]
        options += ["-p", str(peer["port"])] if peer["port"] else []
        ssh = SshExecutor(peer["alias"], tuple(options), LocalExecutor())
        done = ssh.run(Command(("true",)), timeout_s=SSH_TIMEOUT_S)
        if done.ok:
            return {"to": peer["name"], "step": ""}
        target = SshTarget(peer["name"], peer["port"] or 22, peer["user"] or "", "")
        broken = parse_ssh_words(done.stderr, peer["alias"], target)
        broken = broken or broken_at(ANSWER, done.last_words, peer["alias"], target, "{ssh} true")
        step, found, fix = broken
        return {"to": peer["name"], "step": step, "found": found, "fix": fix}

    return run_on_all(visit, list(task.more.get("neighbours", ())))


def judge_host_to_host(fleet: Fleet) -> Iterator[Verdict]:
    """Say of each host whether it can log in to the next ones.

    It is a failure only where a launch goes from host to host; elsewhere nothing needs it.
    """
    needed = bool(fleet.facts.get("tree_launch"))
    why = "the tree launch needs it" if needed else "not needed: the launcher starts every host"
    for host, answer in fleet.answers.get(CODE, {}).items():
        if answer.error:
            yield not_asked(CODE, host, answer.error)
            continue
        # A host that this machine does not reach either is the reach check's.
        tried = [peer for peer in answer.value if peer["to"] not in fleet.unreachable]
        failed = [peer for peer in tried if peer["step"]]
        if not tried:
            yield Verdict(CODE, SKIP, "no other host to log in to", hosts=(host,))
        elif not failed:
            found = "logs in to the next two hosts of the ring (not every pair was tried)"
            yield Verdict(CODE, PASS, found, hosts=(host,))
        else:
            ends = "; ".join(f"to {p['to']}: {p['step']}: {p['found']}" for p in failed)
            fix = f"on {host}: {failed[0]['fix']}" if needed else ""
            yield Verdict(CODE, FAIL if needed else SKIP, f"{ends} ({why})", fix, "", (host,))


HOST_TO_HOST = Check(
    CODE, judge_host_to_host, (Probe(CODE, look_at_neighbours, SSH_TIMEOUT_S + 5),),
    needs_hosts=True,
)  # fmt: skip
