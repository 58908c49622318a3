"""`hpctrain preflight --level full` and `run --preflight` under a real mpirun and Horovod."""

import json
import os
import signal
import subprocess
import sys

import launching
import pytest
from small_training import SETTINGS, as_options, prepare_data

pytestmark = [pytest.mark.needs("mpirun", "horovod")]
TIMEOUT_S = 280


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare_data(tmp_path_factory.mktemp("data"))


def words_of(data):
    return ["--np", "2", "--oversubscribe", *as_options({**SETTINGS, "data.path": data})]


def start(folder, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "hpctrain", "preflight", *map(str, words)], cwd=folder, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def preflight(folder, *words):
    process = start(folder, *words, "--json")
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, {each["code"]: each for each in json.loads(out)}, err


def test_two_ranks_rehearse_their_training_and_leave_nothing(tmp_path, data):
    """Saved after three steps; after resuming, the losses of steps 4 and 5 bit for bit."""
    code, verdicts, err = preflight(
        tmp_path, *words_of(data), "--only", "rehearsal", "--only", "all-reduce"
    )
    assert code == 0, (verdicts, err)
    assert verdicts["rehearsal"]["status"] == "PASS"
    assert "5 steps on 2 ranks (cpu, fp32)" in verdicts["rehearsal"]["found"]
    assert verdicts["rehearsal"]["found"].endswith("the same bit for bit")
    assert "2 ranks: 16M at" in verdicts["all-reduce"]["found"]
    assert "elements right" in verdicts["all-reduce"]["found"]
    assert "2/2 rehearsal: PASS" in err
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_cannot_run_fails_with_its_own_words(tmp_path, data):
    (tmp_path / "runs").mkdir()
    words = [*words_of(data), "--set", f"data.path={tmp_path / 'nowhere'}", "--only", "rehearsal"]
    code, verdicts, _ = preflight(tmp_path, *words)
    assert code == 1
    assert verdicts["rehearsal"]["status"] == "FAIL"
    assert "nowhere" in verdicts["rehearsal"]["found"]
    assert list((tmp_path / "runs").iterdir()) == []


def test_devices_and_disk_of_this_machine(tmp_path):
    codes = ["matrix", "memory-rate", "storage-rate"]
    words = [word for code in codes for word in ("--only", code)]
    code, verdicts, err = preflight(tmp_path, *words)
    assert code == 0, (verdicts, err)
    assert list(verdicts) == codes
    assert "products right" in verdicts["matrix"]["found"]
    assert "nothing changed" in verdicts["memory-rate"]["found"]
    assert str(tmp_path) in verdicts["storage-rate"]["found"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ending_it_half_way_leaves_no_rank_and_no_file(tmp_path, data, sent, code):
    words = [*words_of(data), "--set", "train.global_batch_size=4096", "--only", "rehearsal"]
    process = start(tmp_path, *words)

    def ranks():
        return [
            pid for pid in launching.processes_with("hpctrain.train") if _is_below(pid, tmp_path)
        ]

    try:
        launching.wait_until(ranks, "ranks")
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, err
    launching.wait_until(lambda: not ranks(), "ranks to end")
    assert list(tmp_path.iterdir()) == []


def _is_below(pid, folder):
    try:
        return os.readlink(f"/proc/{pid}/cwd").startswith(str(folder))
    except OSError:
        return False


# -- run --preflight -----------------------------------------------------------------------------


def test_a_run_starts_after_a_preflight_that_passed(tmp_path):
    done = launching.run(tmp_path, "--np", "1", "--preflight", "--", "echo", "it runs")
    if done.returncode == 1:
        pytest.fail(f"this machine does not pass the quick level:\n{done.stderr}")
    assert done.returncode == 0
    assert done.stdout == "it runs\n"
    assert "preflight: " in done.stderr
    assert " passed" in done.stderr


def test_nothing_starts_after_one_that_failed(tmp_path):
    words = ["--np", "1", "--preflight", "--set", "launch.mpirun=/no/such/mpirun"]
    done = launching.run(tmp_path, *words, "--", "touch", "started")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "FAIL" in done.stderr
    assert "/no/such/mpirun" in done.stderr
    assert "nothing was started" in done.stderr
    assert list(tmp_path.iterdir()) == []
