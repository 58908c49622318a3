"""`hpctrain run --cluster` towards a cluster whose network this machine is outside of.

Its nodes are a lab's, with disks of their own; the record says that they cannot be reached, so the
run is sent to the head, as with a cloud.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from labs import lab_up
from launching import MPI_PROGRAM
from terraforming import ROOT

pytestmark = [
    pytest.mark.needs("mpirun", "rsync"),
    pytest.mark.skipif(not shutil.which("git"), reason="git: not on PATH"),
]
RESULT = "\nif comm.rank == 0: open('result.txt', 'w').write('made on the head')\n"


def run_here(lab, *words, **more):
    return subprocess.run(
        [sys.executable, "-m", "hpctrain", *words], cwd=lab.folder / "project",
        env={**os.environ, **lab.env}, capture_output=True, text=True, timeout=120, check=False,
        **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A lab that looks like a cloud's cluster, and a project with a file that git does not know."""
    hide = 'hide=["runs", "project"]'  # what is there later has come from here
    with lab_up(tmp_path_factory.mktemp("outside"), "--private-disk", "--set", hide) as lab:
        python = lab.folder / "python"  # the one on the nodes; there, nobody has set PYTHONPATH
        python.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        path = lab.path / "cluster.json"
        record = json.loads(path.read_text())
        record["reachable_from_here"] = False
        record["provider_data"]["python"] = str(python)
        path.write_text(json.dumps(record))
        config = (lab.path / "ssh_config").read_text()
        for node in record["nodes"]:  # as NodeSetup.exchange_keys does on a cloud
            put = "mkdir -p ~/.ssh && cat > ~/.ssh/config && chmod 600 ~/.ssh/config"
            ssh = ["ssh", "-F", str(lab.path / "ssh_config"), node["name"], put]
            subprocess.run(ssh, input=config, text=True, check=True, timeout=30)
        project = lab.folder / "project"
        project.mkdir()
        (project / "train.py").write_text(MPI_PROGRAM + RESULT)
        (project / "fails.py").write_text("raise SystemExit(7)\n")
        for words in (["init", "-q"], ["add", "train.py", "fails.py"]):
            subprocess.run(["git", *words], cwd=project, check=True)
        (project / "secret.txt").write_text("not tracked")
        yield lab


def on_head(lab, line):
    head = json.loads((lab.path / "cluster.json").read_text())["nodes"][0]["name"]
    ssh = ["ssh", "-F", str(lab.path / "ssh_config"), head, line]
    return subprocess.run(ssh, capture_output=True, text=True, check=False, timeout=30).stdout


def test_code_goes_there_and_results_come_back(cluster):
    words = ["run", "--cluster", cluster.name, "--np", "4", "--name", "far"]
    done = run_here(cluster, *words, "--", sys.executable, "train.py")
    assert done.returncode == 0, done.stderr
    assert "rank 0 of 4 sum 10" in done.stdout
    run = cluster.folder / "project" / "runs" / "far"
    logs = [path.read_text() for path in sorted((run / "logs").glob("rank-*.log"))]
    assert [log.split()[1] for log in logs] == ["0", "1", "2", "3"]
    assert len({log.split()[-1] for log in logs}) == 2  # two hosts
    there = on_head(cluster, "cd hpctrain-work/project && ls && cat result.txt")
    assert "made on the head" in there
    assert "secret.txt" not in there
    assert not (cluster.folder / "project" / "result.txt").exists()
    assert list((cluster.path / "unfetched").iterdir()) == []


def test_its_exit_code_is_the_runs(cluster):
    words = ["run", "--cluster", cluster.name, "--np", "2", "--name", "bad"]
    done = run_here(cluster, *words, "--", sys.executable, "fails.py")
    assert done.returncode == 7, done.stderr
    assert (cluster.folder / "project/runs/bad/events.jsonl").exists()


def pending(cluster, name, folder):
    """The mark of a run whose results are to come to a folder."""
    run = {"name": name, "work": "hpctrain-work/project", "runs_dir": "runs", "target": str(folder)}
    path = cluster.path / "unfetched" / f"{name}.json"
    path.write_text(json.dumps(run))
    return path


def test_what_was_not_fetched_keeps_the_cluster(cluster):
    target = cluster.folder / "project" / "runs" / "late"
    mark = pending(cluster, "far", target)
    done = run_here(cluster, "cluster", "down", "--name", cluster.name, "--yes")
    assert done.returncode == 1
    assert "results were not fetched, got far; expected none" in done.stderr
    done = run_here(cluster, "cluster", "fetch", "--name", cluster.name)
    assert done.returncode == 0, done.stderr
    assert (target / "events.jsonl").exists()
    assert not mark.exists()


@pytest.mark.parametrize("began", ["another-boot 1", "$(cat /proc/sys/kernel/random/boot_id) 1"])
def test_a_run_that_was_killed_or_lost_its_head_can_be_fetched(cluster, began):
    """Its PID is another process's now: of another boot, or begun at another moment."""
    mark = pending(cluster, "far", cluster.folder / "project" / "runs" / "gone")
    on_head(
        cluster,
        "cd hpctrain-work/project/.hpctrain && mv far.exit far.kept && "
        f'echo 1 > far.pid && echo "{began}" > far.began',
    )
    done = run_here(cluster, "cluster", "fetch", "--name", cluster.name)
    on_head(cluster, "cd hpctrain-work/project/.hpctrain && mv far.kept far.exit")
    assert done.returncode == 0, done.stderr
    assert "far: ended without an exit code: it was killed, or its head was turned off" in (
        done.stdout
    )
    assert not mark.exists()


def test_a_run_that_goes_on_is_not_fetched_yet(cluster):
    mark = pending(cluster, "long", cluster.folder / "project" / "runs" / "long")
    began = '"$(cat /proc/sys/kernel/random/boot_id) $(cut -d" " -f22 /proc/$!/stat)"'
    on_head(
        cluster,
        "cd hpctrain-work/project/.hpctrain && (sleep 60 > /dev/null 2>&1 & "
        f"echo $! > long.pid; echo {began} > long.began)",
    )
    done = run_here(cluster, "cluster", "fetch", "--name", cluster.name)
    on_head(cluster, "kill $(cat hpctrain-work/project/.hpctrain/long.pid)")
    mark.unlink()
    assert done.returncode == 1
    assert "long: it still runs; expected that it has ended" in done.stderr


def test_a_dry_run_says_what_would_run_where(cluster):
    words = ["run", "--cluster", cluster.name, "--name", "dry", "--dry-run"]
    done = run_here(cluster, *words, "--", "python", "train.py")
    assert done.returncode == 0, done.stderr
    assert "hpctrain run --hosts .hpctrain/hostfile --name dry --runs-dir runs -- python" in (
        done.stdout
    )
    assert not Path(cluster.folder / "project/runs/dry").exists()


def test_code_on_the_command_line_is_no_file(cluster):
    words = ["run", "--cluster", cluster.name, "--name", "code", "--dry-run"]
    done = run_here(cluster, *words, "--", "python", "-c", "import os\n" * 1000)
    assert done.returncode == 0, done.stderr


def test_sync_brings_code_to_the_hosts_of_a_hostfile(cluster):
    words = ["run", "--hosts", str(cluster.hostfile), "--sync", "--np", "4", "--name", "near"]
    (cluster.folder / "project" / "train.py").write_text(MPI_PROGRAM + "# changed since\n")
    done = run_here(cluster, *words, "--", sys.executable, "train.py")
    assert done.returncode == 0, done.stderr
    there = on_head(cluster, f"cat {cluster.folder}/project/train.py")
    assert "changed since" in there
