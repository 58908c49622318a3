"""`hpctrain bench allreduce` under a real mpirun: every backend, every element, every error."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpctrain.bench.allreduce import measure
from hpctrain.bench.allreduce.measure import run_allreduce
from hpctrain.bench.allreduce.results import result_from_json
from hpctrain.cli import main
from hpctrain.errors import BenchError

pytestmark = [pytest.mark.needs("mpirun", "horovod")]
ALL = ("horovod", "mpi4py", "torch", "buckets")
SIZES = (4, 1 << 10, 12 << 20)  # the last one is cut into pieces by the trainer's communicator
QUICK = {"repeats": 3, "budget_s": 60.0, "oversubscribe": True}

# A backend whose last element is one too large on one rank, once.
WRONG = """
import sys
from hpctrain.bench.allreduce import worker, worker_backends

class Wrong(worker_backends.Mpi4pyBackend):
    def run(self):
        super().run()
        if len(self.host[-1]) == 256 and self._comm.rank == 1 and not getattr(self, "done", False):
            self.host[-1][-1] += 1
            self.done = True

worker_backends.BACKENDS["mpi4py"] = Wrong
sys.exit(worker.main())
"""

# Stands in for Horovod where it cannot be imported: on rank 1 alone.
HALF_A_HOROVOD = """
import os, pkgutil
__path__ = pkgutil.extend_path(__path__, __name__)
if os.environ.get("HPCTRAIN_RANK") == "1":
    raise ImportError("libmpi.so.40: cannot open shared object file")
"""


@pytest.mark.parametrize("np", [2, 3])
def test_every_backend_sums_right_at_every_size(tmp_path, np):
    seen = []
    result = run_allreduce(
        tmp_path, "a", np, backends=ALL, sizes=SIZES, on_point=seen.append, **QUICK
    )
    found = {(point.backend, point.bytes_): point for point in result.points}
    assert set(found) == {(backend, size) for backend in ALL for size in SIZES}
    assert result.skipped == ()
    assert (result.n, result.nodes) == (np, 1)
    assert result.placement == f"1 node with {np} ranks"
    assert result.environment["torch"] != "not installed"
    for point in result.points:
        assert len(point.repeats_s) == 3
        assert min(point.repeats_s) > 0
        assert point.wrong == 0
        assert point.n == np
        # Three repeats and the warm-up, on all ranks.
        assert point.checked >= np * point.bytes_ // 4 * (3 * point.iterations + 1)
        assert point.iterations == 1 or point.bytes_ < 12 << 20 or point.median_s < 2e-3
    assert seen == sorted(seen)
    assert not seen or seen[-1] <= len(ALL) * len(SIZES)


def test_a_wrong_element_fails_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "WORKER", (sys.executable, "-c", WRONG))
    words = ["bench", "allreduce", "--np", "2", "--oversubscribe", "--sizes", "4,1k,4k"]
    words += ["--backends", "mpi4py", "--repeats", "3", "--runs-dir", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--out", str(tmp_path / "r.json")])
    out, err = capsys.readouterr()
    assert ended.value.code == 1
    assert "mpi4py: wrong sums at 1024 bytes, got 1 wrong of" in err
    assert "4096 bytes" not in err
    rows = [line.split() for line in out.splitlines() if re.search(r"\dx\d+$", line)]
    assert [(row[0], row[-2]) for row in rows] == [("4", "0"), ("1k", "1"), ("4k", "0")]
    result = result_from_json(json.loads((tmp_path / "r.json").read_text()))
    assert [point.wrong for point in result.points] == [0, 1, 0]
    with pytest.raises(BenchError, match="got 1 wrong"):
        run_allreduce(tmp_path / "runs", "again", 2, backends=["mpi4py"], sizes=[1024], **QUICK)


def test_the_command_prints_json_and_says_how_far_it_is(tmp_path):
    words = ["--np", "2", "--oversubscribe", "--sizes", "4,64k", "--repeats", "3", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "hpctrain", "bench", "allreduce", *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = result_from_json(json.loads(done.stdout))
    assert result.backends == ("horovod", "mpi4py", "torch")
    assert "2 sizes from 4 to 64k bytes" in done.stderr
    assert len(list((tmp_path / "runs").glob("allreduce-*/events.jsonl"))) == 1


def test_a_backend_that_one_rank_lacks_is_left_out_with_the_reason(tmp_path, monkeypatch):
    package = tmp_path / "shadow" / "horovod"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(HALF_A_HOROVOD)
    path = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    result = run_allreduce(
        tmp_path / "runs", "a", 2, backends=["horovod", "mpi4py"], sizes=[4, 64, 256],
        overrides=('launch.forward=["PYTHONPATH"]',), **QUICK,
    )  # fmt: skip
    assert result.backends == ("mpi4py",)
    ((name, size, reason),) = [(s.backend, s.bytes_, s.reason) for s in result.skipped]
    assert (name, size) == ("horovod", None)
    assert reason.endswith("cannot be imported: libmpi.so.40: cannot open shared object file")
    assert reason.startswith("on ")


def test_without_mpi4py_ranks_agree_over_another_library(tmp_path, monkeypatch):
    for control in ("horovod", "torch"):
        monkeypatch.setattr(measure, "CONTROLS", (control,))
        result = run_allreduce(tmp_path, control, 2, backends=ALL, sizes=[4, 4096], **QUICK)
        assert result.backends == ALL


def test_the_c_program_compiles_and_sums_right(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import allreduce

    monkeypatch.setattr(allreduce, "CHUNKS", (1 << 10, 1 << 18, 1 << 30))
    bench = allreduce.Bench(tmp_path, repeats=2)
    bench.bytes_ = (1 << 20) + 4  # a rest is left of every chunk size
    assert bench.plain_c() > 0  # it checks every element
    assert {chunk: len(times) for chunk, times in bench.chunks_s.items()} == {
        "1024": 1, "262144": 1, "1073741824": 1
    }  # fmt: skip
    for name in ("allreduce", "measuring"):
        sys.modules.pop(name)
