"""Can every host reach the launching machine, on a port that nobody has opened for it?"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator
from typing import Any

from hpctrain.preflight.check import Check, Probe
from hpctrain.preflight.fleet import Fleet, not_asked
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, Verdict
from hpctrain.preflight.way_back import LINE_BYTES, ROUNDS

CODE = "way-back"
CONNECT_TIMEOUT_S = 5.0


def look_back(task: NodeTask) -> dict[str, Any]:
    """Connect to the launching machine and compare clocks with it.

    Clocks as NTP compares them: of several exchanges the quickest, its middle against what the
    launching machine said; wrong by half the round trip at most (RFC 5905, section 8).
    """
    head = task.more.get(CODE)
    answer: dict[str, Any] = {"clock_s": time.time(), "reached": False, "error": ""}
    if head is None:
        return answer
    best_s = math.inf
    try:
        with socket.create_connection((head["address"], head["port"]), CONNECT_TIMEOUT_S) as sock:
            lines = sock.makefile("rb")
            for _ in range(ROUNDS):
                asked_s = time.time()
                sock.sendall(f"{head['word']}\n".encode())
                there_s = float(lines.readline(LINE_BYTES))
                round_trip_s = time.time() - asked_s
                if round_trip_s < best_s:
                    best_s = round_trip_s
                    answer["ahead_s"] = asked_s + round_trip_s / 2 - there_s
                    answer["error_s"] = round_trip_s / 2
            answer["reached"] = True
    except TimeoutError:
        answer["error"] = f"no answer within {CONNECT_TIMEOUT_S:g} s"
    except OSError as problem:
        answer["error"] = problem.strerror or str(problem)
    except ValueError:
        answer["error"] = "something else answers there"
    return answer


LOOK_BACK = Probe(CODE, look_back)


def judge_way_back(fleet: Fleet) -> Iterator[Verdict]:
    """Say of each remote host whether it reaches the launching machine."""
    head = fleet.facts.get(CODE)
    for host, answer in fleet.answers.get(CODE, {}).items():
        if host in fleet.local:
            continue
        if answer.error:
            yield not_asked(CODE, host, answer.error)
        elif head is None:
            found = "not tried: no address of this machine is known that other hosts could use"
            yield Verdict(CODE, SKIP, found, hosts=(host,))
        elif answer.value["reached"]:
            found = f"reaches this machine's {head.address} on a free port"
            yield Verdict(CODE, PASS, found, hosts=(host,))
        else:
            found = f"cannot open TCP to this machine's {head.address}: {answer.value['error']}"
            fix = (
                f"allow TCP from it to {head.address}, ports 1024 to 65535 (firewall, security "
                "group), or name another network: --set launch.subnet=10.0.0.0/24"
            )
            expected = "mpirun and rank shims must connect back"
            yield Verdict(CODE, FAIL, found, fix, expected, (host,))


WAY_BACK = Check(CODE, judge_way_back, (LOOK_BACK,), needs_hosts=True)
