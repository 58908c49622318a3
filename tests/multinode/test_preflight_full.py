"""`hpctrain preflight --level full` on lab nodes, and a run without the hosts that it names."""

import json
import os
import subprocess
import sys

import pytest
from labs import lab_up
from small_training import SETTINGS, as_options, prepare_data

pytestmark = pytest.mark.needs("mpirun", "horovod", "torch")
TIMEOUT_S = 280


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    links = ["--bandwidth", "1gbit", "--bandwidth", "n3=40mbit"]
    with lab_up(folder, "--nodes", "3", "--set", "slots=1", *links) as up:
        prepare_data(folder)
        yield up


def preflight(lab, *words):
    done = subprocess.run(
        [sys.executable, "-m", "hpctrain", "preflight", "--cluster", lab.name, *words, "--json"],
        cwd=lab.folder, env={**os.environ, **lab.env}, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_the_slow_link_of_one_host_is_named_by_pairs_and_a_run_leaves_it_out(lab):
    slow = lab.host("n3")
    code, verdicts = preflight(lab, "--only", "pairs", "--out", "checked")
    assert code == 1, verdicts
    bad = [verdict for verdict in verdicts if verdict["status"] == "FAIL"]
    assert [verdict["hosts"] for verdict in bad] == [[slow], [slow]]
    told = {name for name in ("n1", "n2") for v in bad if lab.host(name) in v["found"]}
    assert told == {"n1", "n2"}  # each pair names both of its hosts
    assert all(slow in verdict["found"] for verdict in bad)
    assert [v["status"] for v in verdicts if v not in bad] == ["PASS"]
    failed = lab.folder / "checked" / "hosts-failed"
    assert failed.read_text() == f"{slow}\n"
    assert not (lab.folder / "runs").exists()

    done = lab.run("--exclude-file", str(failed), "--", "hostname")
    assert done.returncode == 0, done.stderr
    ranks = [done.rank_events(rank)[0] for rank in (0, 1)]
    assert sorted(rank["host"] for rank in ranks) == [lab.host("n1"), lab.host("n2")]


def test_hosts_rehearse_together_and_leave_nothing(lab):
    words = as_options({**SETTINGS, "data.path": lab.folder / "data"})
    excluded = lab.folder / "excluded"
    excluded.write_text(lab.host("n3") + "\n")
    only = ["--only", "rehearsal", "--only", "storage-rate", "--only", "matrix"]
    code, verdicts = preflight(lab, *words, "--exclude-file", str(excluded), *only)
    found = {verdict["code"]: verdict for verdict in verdicts}
    assert code == 0, verdicts
    assert "5 steps on 2 ranks" in found["rehearsal"]["found"]
    assert found["rehearsal"]["found"].endswith("bit for bit")
    assert found["matrix"]["hosts"] == [lab.host("n1"), lab.host("n2")]
    assert set(found["storage-rate"]["hosts"]) == {lab.host("n1"), lab.host("n2")}
    left = [path for path in lab.folder.rglob("*") if "preflight" in path.name]
    assert left == []


def test_two_hosts_with_a_slow_link_are_told_what_the_training_would_need(lab):
    """One pair has no other to be compared with; the training itself shows that it waits."""
    wide = {
        **SETTINGS,
        "data.path": lab.folder / "data",
        "model.d_model": 320,
        "comm.bucket_mb": 25,
    }
    excluded = lab.folder / "only-two"
    excluded.write_text(lab.host("n2") + "\n")
    code, verdicts = preflight(
        lab, *as_options(wide), "--exclude-file", str(excluded), "--only", "rehearsal"
    )
    assert code == 0, verdicts
    assert [verdict["status"] for verdict in verdicts] == ["WARN", "PASS"]
    assert "of a step waits for the exchange" in verdicts[0]["found"]
    assert "GB/s to hide it" in verdicts[0]["found"]
