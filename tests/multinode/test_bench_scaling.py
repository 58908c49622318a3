"""``hpctrain bench`` on lab nodes: the same np on one node and on two."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from nodes import nodes_up

from hpctrain.bench.scaling.cases import read_bench

pytestmark = pytest.mark.needs("mpirun")

PROGRAM = """
import socket, time
from mpi4py import MPI
from hpctrain.events import report_step
print("on", socket.gethostname(), flush=True)
for step in range(1, 6):
    begun_s = time.perf_counter()
    time.sleep(0.02)
    MPI.COMM_WORLD.allreduce(step)
    taken_s = time.perf_counter() - begun_s
    if MPI.COMM_WORLD.rank == 0:
        report_step(step, step_time_s=taken_s, tokens_per_s=MPI.COMM_WORLD.size * 10 / taken_s)
"""


def test_one_node_against_two_at_the_same_np(tmp_path):
    arguments = ["--np", "2", "--repeats", "2", "--warmup-steps", "1", "--out", "b"]
    arguments += ["--hosts", "hostfile", "--no-allreduce", "--", sys.executable, "program.py"]
    (tmp_path / "program.py").write_text(PROGRAM)
    with nodes_up(tmp_path) as nodes:
        argv = [*nodes.inside("n0"), sys.executable, "-m", "hpctrain", "bench", *arguments]
        done = subprocess.run(
            argv, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan, stored, _ = read_bench(tmp_path / "b")
    assert [(case.key, case.hosts) for case in plan.cases] == [
        ("weak-np2-1node", (("n1", 2),)),
        ("weak-np2-2nodes", (("n1", 1), ("n2", 1))),
    ]
    places = []
    for each in stored:
        logs = sorted((tmp_path / "b" / each.run / "logs").glob("rank-*.log"))
        places.append([log.read_text().strip() for log in logs])
    assert places == [["on n1", "on n1"], ["on n1", "on n2"]] * 2  # interleaved
    assert [each.repeat for each in stored] == [0, 0, 1, 1]
    for each in stored:
        steps_s = each.sample.step_time_s
        assert len(steps_s) == len(set(steps_s)) == 4
        # Each step slept for 20 ms, and all of them are within the trial.
        assert min(steps_s) >= 0.02
        assert sum(steps_s) < each.wall_s
        assert each.sample.tokens_per_step == pytest.approx(20)
    # What the report says is what was measured.
    report = json.loads((tmp_path / "b" / "report.json").read_text())
    assert "weak-np2-2nodes" in json.dumps(report)
    hosts = json.loads((tmp_path / "b" / "bench.json").read_text())["environment"]["hosts"]
    assert [(host["name"], host["slots"]) for host in hosts] == [("n1", 2), ("n2", 2)]
