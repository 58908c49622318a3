"""The test suite's own promise: what is missing is skipped with a reason, or fails if required."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
CASE = """
import pytest, tiers
tiers.PIECES = {{**tiers.PIECES, "mpirun": tiers.Piece("mpirun", lambda: {why!r}, "make setup")}}

@pytest.mark.needs("mpirun")
def test_case():
    pass
"""


def run_case(tmp_path, why, **environ):
    """Run one test that needs an mpirun, which is missing for the reason `why`."""
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "test_case.py").write_text(CASE.format(why=why))
    clean = {name: value for name, value in os.environ.items() if name != "HPCTRAIN_REQUIRE"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}",
         "-c", os.devnull, "-o", f"pythonpath={TESTS}", str(tmp_path)],
        cwd=tmp_path, env={**clean, **environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_missing_is_a_skip_that_the_end_explains(tmp_path):
    done = run_case(tmp_path, "no mpirun here")
    assert done.returncode == 0, done.stdout
    assert "mpirun: no mpirun here  → make setup" in done.stdout


@pytest.mark.parametrize("names", ["mpirun", "sshd, mpirun ,"])
def test_missing_and_required_is_a_failure(tmp_path, names):
    done = run_case(tmp_path, "no mpirun here", HPCTRAIN_REQUIRE=names)
    assert done.returncode == 1
    assert "mpirun is required by HPCTRAIN_REQUIRE: no mpirun here" in done.stdout


def test_present_and_required_runs(tmp_path):
    done = run_case(tmp_path, "", HPCTRAIN_REQUIRE="mpirun")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_an_unknown_name_is_an_error_that_lists_the_known_ones(tmp_path):
    done = run_case(tmp_path, "", HPCTRAIN_REQUIRE="mpirnu")
    assert done.returncode == 4
    assert "unknown piece, got mpirnu; expected some of mpirun" in done.stderr
