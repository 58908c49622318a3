"""Tiers by folder, what each test needs, and at the end: what was skipped, why, what brings it."""

import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import hypothesis
import mpi_flavours
import pytest
import tiers

TESTS = Path(__file__).parent
CHEAP = {"mpirun", "torch", "horovod", "sshd", "netns", "cuda", "terraform", "moto"}


def pytest_configure(config):
    for folder in tiers.FOLDERS:
        config.addinivalue_line("markers", f"{folder}: a test in tests/{folder}")
    config.addinivalue_line("markers", "needs(*pieces): skip, or fail if required, without them")
    config.pluginmanager.register(mpi_flavours)
    tiers.required()
    # A shell's background job, or nohup, ignores these, and so would all that the tests start;
    # hpctrain itself respects that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # No test is timed: a busy machine must not fail one.
    hypothesis.settings.register_profile("hpctrain", deadline=None)
    hypothesis.settings.load_profile("hpctrain")


def pytest_collection_modifyitems(items):
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if folder in tiers.FOLDERS:
            item.add_marker(getattr(pytest.mark, folder))


@pytest.fixture(autouse=True)
def tmpdir_of_its_own(request, monkeypatch):
    """Give each test that starts an mpirun a TMPDIR of its own, with a short path for sockets.

    Open MPI names its folders there by its PID and stumbles over those of one that was killed.
    """
    if not request.node.get_closest_marker("integration"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="hpt", dir="/tmp", ignore_cleanup_errors=True) as own:
        monkeypatch.setenv("TMPDIR", own)
        yield


def pytest_runtest_setup(item):
    for folder, pieces in tiers.FOLDERS.items():
        if item.get_closest_marker(folder):
            tiers.require(*pieces)
    for marker in item.iter_markers("needs"):
        tiers.require(*marker.args)


def pytest_sessionfinish(session):
    """Fail a run whose required pieces are missing even where no test asked for them."""
    absent = [name for name in sorted(tiers.required() & CHEAP) if tiers.missing(name)]
    for name in absent:
        print(f"\n{name} is required by {tiers.VARIABLE}: {tiers.missing(name)}", file=sys.stderr)
    if absent and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    skipped = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    if not skipped:
        return
    terminalreporter.section("skipped: what, why, what brings it")
    for reason, count in sorted(skipped.items()):
        piece = tiers.PIECES.get(reason.split(":")[0])
        brings = f"  → {piece.brings}" if piece else ""
        terminalreporter.write_line(f"{count:>4}  {reason}{brings}")


def _reason(report):
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ").splitlines()[0]
