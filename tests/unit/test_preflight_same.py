"""Preflight's "the same everywhere": software, NCCL, data, folders."""

import hashlib
import os
import shutil
import subprocess
from dataclasses import replace

import pytest
from preflight_fleets import stand_in
from preflight_values import GOOD, with_package

from hpctrain import __version__
from hpctrain.config import as_tables, parse_config
from hpctrain.preflight.checks import CHECKS
from hpctrain.preflight.checks.data import BLOCK_BYTES, DATA, WHOLE_BYTES, digest_file, look_at_data
from hpctrain.preflight.checks.nccl_library import judge_nccl_library
from hpctrain.preflight.checks.paths import PATHS, SHARED, find_file_system, look_at_paths
from hpctrain.preflight.fleet import Answer, Fleet
from hpctrain.preflight.machine import machine_as_json
from hpctrain.preflight.software import (
    find_nccl_files,
    look_at_commit,
    look_at_software,
    parse_driver_version,
)
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN

MPI = "openmpi5 5.0.11"
SAME = {check.code: check for check in CHECKS}
SOFTWARE = {"hpctrain": __version__, "kernel": "6.1.0", "driver": "", "commit": "a" * 40,
            "changes": "", "git_problem": "", "nccl_files": {}}  # fmt: skip


def fleet(probe, values, tasks=None, **facts):
    answers = {host: Answer(value) for host, value in values.items()}
    tasks = tasks or {host: NodeTask(host=host) for host in values}
    return Fleet(tasks=tasks, answers={probe: answers}, facts=facts)


def of_machines(**machines):
    return fleet("machine", {host: machine_as_json(m) for host, m in machines.items()})


def of_software(**changes):
    return fleet("software", {host: {**SOFTWARE, **change} for host, change in changes.items()})


CUDA = {
    "version": "2.13.0",
    "cuda": "13.0",
    "cuda_devices": 8,
    "nccl_libraries": ["/t/libnccl.so.2"],
}
WITH_NCCL = replace(GOOD, packages={
    **GOOD.packages, "torch": CUDA,
    "nccl": {"loaded": {"/t/libnccl.so.2": "2.29.7"}, "torch": "2.28.9"},
})  # fmt: skip


@pytest.mark.parametrize(
    ("code", "other", "status", "expected"),
    [
        ("same-python", replace(GOOD, python_version=(3, 12, 1)), FAIL, "3.11.7"),
        ("same-python", replace(GOOD, python_version=(3, 11, 2)), WARN, "3.11.7"),
        ("same-torch", with_package("torch", version="2.12.0"), FAIL, "2.13.0"),
        ("same-torch", with_package("torch", error="No module named 'torch'"), FAIL, "2.13.0"),
        ("same-horovod", with_package("horovod", version="0.28.1", operations=["NCCL"]), FAIL,
         "0.28.1 (MPI)"),
        ("same-mpi", replace(GOOD, mpi=None), FAIL, MPI),
        ("same-mpi", replace(GOOD, mpi=replace(GOOD.mpi, version="4.1.8")), FAIL, MPI),
        ("same-nccl", WITH_NCCL, FAIL, "none"),
        ("same-cuda", WITH_NCCL, FAIL, "none"),
    ],
)  # fmt: skip
def test_the_host_that_differs_is_named_with_what_the_others_have(code, other, status, expected):
    (verdict,) = SAME[code].judge(of_machines(n1=GOOD, n2=other, n3=GOOD))
    assert (verdict.status, verdict.hosts) == (status, ("n2",))
    assert verdict.expected == f"{expected} as on n1, n3"
    assert verdict.fix


def test_hosts_that_are_alike_are_one_line():
    for code in ("same-python", "same-torch", "same-horovod", "same-mpi"):
        (verdict,) = SAME[code].judge(of_machines(n1=GOOD, n2=GOOD))
        assert (verdict.status, verdict.hosts) == (PASS, ("n1", "n2"))
    for code in ("same-nccl", "same-cuda"):
        (verdict,) = SAME[code].judge(of_machines(n1=GOOD, n2=GOOD))
        assert verdict.status == SKIP
    (verdict,) = SAME["same-nccl"].judge(of_machines(n1=WITH_NCCL, n2=WITH_NCCL))
    assert (verdict.status, verdict.found) == (PASS, "2.29.7")


@pytest.mark.parametrize(
    ("code", "change", "status"),
    [
        ("same-hpctrain", {"hpctrain": "0.0.9"}, FAIL),
        ("same-kernel", {"kernel": "5.15.0"}, WARN),
        ("same-driver", {"driver": "580.65"}, WARN),
        ("same-commit", {"commit": "b" * 40}, FAIL),
        ("same-commit", {"changes": "12345678"}, FAIL),
        ("same-commit", {"commit": ""}, FAIL),
    ],
)
def test_software_that_differs(code, change, status):
    (verdict,) = SAME[code].judge(of_software(n1={}, n2={}, n3=change))
    assert (verdict.status, verdict.hosts) == (status, ("n3",))
    alike = judge_statuses(SAME[code], of_software(n1=change, n2=change))
    # Shim and launcher speak to each other: hpctrain must be this machine's version as well.
    assert alike == [FAIL] if code == "same-hpctrain" else alike in ([PASS], [SKIP])


BLIND = {"git_problem": "git: fatal: detected dubious ownership"}
CHANGED = {"changes": "12345678"}


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        # Where git says nothing the commit is compared, and what is changed is not.
        ({"n1": CHANGED, "n2": BLIND}, [(WARN, "n2"), (PASS, "n1", "n2")]),
        ({"n1": BLIND, "n2": BLIND}, [(WARN, "n1"), (WARN, "n2"), (PASS, "n1", "n2")]),
        ({"n1": {}, "n2": {}, "n3": {**BLIND, "commit": "b" * 40}},
         [(WARN, "n3"), (FAIL, "n3")]),
        # The working directory is not there: 'paths' judges that.
        ({"n1": {}, "n2": {"commit": "", "git_problem": "/w is not there"}},
         [(WARN, "n2"), (PASS, "n1")]),
        ({"n1": {}, "n2": {}, "n3": CHANGED}, [(FAIL, "n3")]),
    ],
)  # fmt: skip
def test_where_git_says_nothing_changes_are_not_compared(hosts, expected):
    verdicts = list(SAME["same-commit"].judge(of_software(**hosts)))
    assert [(v.status, *v.hosts) for v in verdicts] == expected
    assert all("not compared: " in v.found for v in verdicts if v.status == WARN)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Stand in a checkout with one commit."""
    git = shutil.which("git") or pytest.skip("no git")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.py").write_text("1\n")
    for words in ("init -q", "add a.py", "-c user.name=a -c user.email=a@b commit -q -m a"):
        subprocess.run([git, *words.split()], check=True)
    return tmp_path


def test_what_git_shows_as_changed_is_told_from_what_it_cannot_tell(checkout, monkeypatch):
    task = NodeTask(host="n1", cwd=str(checkout))
    clean = look_at_commit(task)
    assert (len(clean["commit"]), clean["changes"], clean["git_problem"]) == (40, "", "")
    (checkout / "a.py").write_text("2\n")
    changed = look_at_commit(task)
    assert (changed["commit"], len(changed["changes"])) == (clean["commit"], 8)
    elsewhere = look_at_commit(replace(task, cwd="/no/such"))
    assert (elsewhere["commit"], elsewhere["git_problem"]) == ("", "/no/such is not there")
    stand_in(checkout, monkeypatch, "git", "", 128)
    failed = look_at_commit(task)
    assert (failed["commit"], failed["changes"]) == (clean["commit"], "")
    assert failed["git_problem"].startswith("git: ")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert look_at_commit(task)["git_problem"] == "git: No such file or directory"


def judge_statuses(check, hosts):
    return [verdict.status for verdict in check.judge(hosts)]


# Real lines of /proc/driver/nvidia/version, from public pages: the documentation of Sheffield's
# ShARC cluster; SUSE's guide to its NVIDIA packages; the Talos guide; a Jetson in roboflow's tests.
DRIVER_LINES = {
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  384.81  Wed Aug 17 22:24:07 PDT 2016\n"
    "GCC version:  gcc version 4.8.5 20150623 (Red Hat 4.8.5-4) (GCC)\n": "384.81",
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  555.42.06  Release Build  "
    "(abuild@host)  Thu Jul 11 12:00:00 UTC 2024\n"
    "GCC version:  gcc version 7.5.0 (SUSE Linux) \n": "555.42.06",
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  515.65.01  Wed Mar 16 11:24:05 UTC 2022\n"
    "GCC version:  gcc version 12.2.0 (GCC)\n": "515.65.01",
    "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  "
    "(buildbrain@mobile-u64-6336-d8000)  Tue Jan  7 17:35:12 PST 2025\n": "540.4.0",
    "": "",
}


@pytest.mark.parametrize(("text", "version"), DRIVER_LINES.items())
def test_the_drivers_version(text, version):
    assert parse_driver_version(text) == version


def test_this_machines_software():
    software = look_at_software(NodeTask(host="n1"))
    assert software["kernel"] == os.uname().release
    assert set(software) == set(SOFTWARE)


# -- NCCL -----------------------------------------------------------------------------------------


def nccl(loaded, own=None, linked=(), files=None):
    packages = {"torch": {"nccl_libraries": list(linked)}, "nccl": {"loaded": loaded, "torch": own}}
    return judge_nccl_library({"packages": packages}, files or {})


def test_two_nccls_in_one_process_fail():
    torchs, system = "/venv/nccl/lib/libnccl.so.2", "/usr/lib/libnccl.so.2.19.3"
    one = {torchs: "2.29.7"}
    two = {torchs: "2.29.7", system: "2.19.3"}
    assert nccl({}).status == SKIP
    assert nccl(one, "2.28.9", [torchs]).status == PASS  # built with another, of no account
    assert nccl(two, "2.28.9", [torchs]).status == FAIL
    inside = nccl({system: "2.19.3"}, "2.21.5")  # a torch with its NCCL inside, and Horovod's
    assert inside.status == FAIL
    assert "2.21.5 inside torch" in inside.found
    assert nccl({}, "2.21.5").status == PASS
    beside = nccl(one, "2.29.7", [torchs], {system: "2.19.3"})
    assert (beside.status, system in beside.found) == (WARN, True)
    assert judge_nccl_library({"packages": {}}, {}).status == SKIP


def test_nccl_files_are_found_by_the_linkers_path(tmp_path):
    (tmp_path / "libnccl.so.2.19.3").touch()
    (tmp_path / "libnccl.so.2").symlink_to("libnccl.so.2.19.3")
    found = find_nccl_files({"LD_LIBRARY_PATH": f"{tmp_path}::/no/such"})
    assert found[f"{tmp_path}/libnccl.so.2"] == "2.19.3"


# -- folders --------------------------------------------------------------------------------------

SAVING = as_tables(parse_config(""))
SHARDED = as_tables(parse_config("[optim]\nsharded = true"))
NOT_SAVING = as_tables(parse_config("[checkpoint]\nsave = 'off'"))


def look(tmp_path, **more):
    task = NodeTask(host="n1", run_path=str(tmp_path / "runs" / "r"), more={"marker": "m-0"},
                    cwd=os.getcwd(), **more)  # fmt: skip
    return task, look_at_paths(task)


def test_looking_at_the_runs_folder(tmp_path):
    _, value = look(tmp_path)
    assert (value["folder"], value["marked"], value["cwd"]) == (str(tmp_path), True, True)
    assert [path.name for path in tmp_path.iterdir()] == ["m-0"]
    assert value["temporary"] == ""
    assert value["file_system"]


def paths(task=None, **changes):
    value = {"folder": "/d", "marked": True, "problem": "", "file_system": "nfs4", "cwd": True,
             "temporary": "", "temporary_folder": "/tmp"}  # fmt: skip
    tasks = {"n1": task or NodeTask(host="n1", config=SAVING)}
    return [v.status for v in PATHS.judge(fleet("paths", {"n1": {**value, **changes}}, tasks))]


def test_a_host_that_writes_nothing_may_be_without_a_writable_folder():
    value = {"folder": "/d", "marked": False, "problem": "Read-only file system", "cwd": True,
             "file_system": "ext4", "temporary": "", "temporary_folder": "/tmp"}  # fmt: skip

    def judged(config, ranks=(1, 1), **facts):
        tasks = {
            host: NodeTask(host=host, config=config, ranks=count)
            for host, count in zip(("n1", "n2"), ranks, strict=True)
        }
        return [
            v.status
            for v in PATHS.judge(fleet("paths", dict.fromkeys(tasks, value), tasks, **facts))
        ]

    assert judged(SAVING) == [FAIL, WARN]
    assert judged(SAVING, (0, 1)) == [WARN, FAIL]  # rank 0 is on the first that has ranks
    assert judged(SAVING, paths="launcher") == [WARN, WARN]  # between attempts: rank 0 is there
    assert judged(SHARDED) == [FAIL, FAIL]
    assert judged(SHARDED, (1, 0)) == [FAIL, WARN]
    assert judged(NOT_SAVING) == [WARN, WARN]


def test_a_missing_folder_hides_no_other():
    found = paths(cwd=False, marked=False, problem="x", temporary="No space left on device")
    assert found == [FAIL, FAIL, FAIL]


def test_judging_folders():
    unwritable = {"marked": False, "problem": "Permission denied"}
    assert paths() == [PASS]
    assert paths(**unwritable) == [FAIL]
    assert paths(NodeTask(host="n1", config=NOT_SAVING), **unwritable) == [WARN]
    assert paths(NodeTask(host="n1", program=("a",)), **unwritable) == [WARN]
    assert paths(cwd=False) == [FAIL]  # its data path is relative
    assert paths(NodeTask(host="n1"), cwd=False) == [WARN]
    assert paths(temporary="No space left on device") == [FAIL]


@pytest.mark.parametrize(
    ("config", "seen", "status"),
    [
        (SAVING, {"n1": ["n1", "n2"], "n2": ["n2"]}, PASS),
        (SAVING, {"n1": ["n1"], "n2": ["n2"]}, WARN),
        (SHARDED, {"n1": ["n1"], "n2": ["n2"]}, FAIL),
        (SHARDED, {"n1": ["n1", "n2"], "n2": ["n1", "n2"]}, PASS),
        ({}, {"n1": ["n1"], "n2": ["n2"]}, WARN),
        (SAVING, {}, SKIP),
    ],
)
def test_judging_whether_hosts_share_it(config, seen, status):
    tasks = {host: NodeTask(host=host, config=config, ranks=2) for host in ("n1", "n2")}
    values = {host: {"folder": "/d/runs"} for host in tasks}
    (verdict,) = SHARED.judge(fleet("paths", values, tasks, **{"shared-folder": seen}))
    assert verdict.status == status
    # It is the setting that fails: hosts-failed must not leave every host out.
    assert bool(verdict.hosts) is (status in (PASS, WARN))


def test_the_innermost_mount_counts():
    mounts = "overlay / overlay rw 0 0\nnas:/x /data nfs4 rw 0 0\nd /data/my\\040runs ext4 rw 0 0\n"
    assert find_file_system(mounts, "/data/my runs/r") == "ext4"
    assert find_file_system(mounts, "/database") == "overlay"


# -- data -----------------------------------------------------------------------------------------


def test_small_files_are_read_whole_and_large_ones_in_blocks(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"tokens")
    assert digest_file(small) == (hashlib.sha256(b"tokens").hexdigest(), True)
    content = bytearray(WHOLE_BYTES + 1000)
    large.write_bytes(content)
    before, whole = digest_file(large)
    assert not whole
    for place in (0, len(content) - 1, BLOCK_BYTES - 1):  # in the first block, and in the last
        changed = content.copy()
        changed[place] = 1
        large.write_bytes(changed)
        assert digest_file(large)[0] != before
    large.write_bytes(content[:-1])
    assert digest_file(large)[0] != before


def task_with_data(path):
    text = f"[data]\npath = '{path}'\n[model]\nseq_len = 16"
    return NodeTask(host="n1", config=as_tables(parse_config(text)))


@pytest.fixture
def prepared(tmp_path):
    pytest.importorskip("numpy")
    from hpctrain.train.prepare import prepare_data
    from hpctrain.train.prepare_request import PrepareRequest

    (tmp_path / "text.txt").write_text("All work and no play makes a dull data set.\n" * 500)
    prepare_data(PrepareRequest(sources=(str(tmp_path / "text.txt"),), out=tmp_path / "data"))
    return tmp_path / "data"


def judge_data(**values):
    return [(v.status, *v.hosts) for v in DATA.judge(fleet("data", values))]


def test_data_that_is_missing_is_the_hosts_failure(tmp_path):
    value = look_at_data(task_with_data(tmp_path / "none"))
    assert "holds no prepared data" in value["problems"][0]
    assert judge_data(n1=value) == [(FAIL, "n1")]
    assert look_at_data(NodeTask(host="n1")) == {}
    assert judge_data(n1={}) == [(SKIP, "n1")]


def test_data_that_a_run_can_read_passes_and_a_damaged_file_is_named(prepared):
    value = look_at_data(task_with_data(prepared))
    assert value["problems"] == []
    assert value["read"] == len(value["files"]) >= 2
    assert judge_data(n1=value, n2=value) == [(PASS, "n1", "n2")]
    shard = next(prepared.glob("train*"))
    content = bytearray(shard.read_bytes())
    content[7] ^= 1
    shard.write_bytes(content)
    damaged = look_at_data(task_with_data(prepared))
    assert [shard.name in problem for problem in damaged["problems"]] == [True]
    assert judge_data(n1=value, n2=damaged) == [(FAIL, "n2"), (PASS, "n1")]


def test_data_that_does_not_fit_the_model_fails(prepared):
    task = task_with_data(prepared)
    config = {**task.config, "model": {**task.config["model"], "vocab_size": 1000}}
    (problem,) = look_at_data(replace(task, config=config))["problems"]
    assert "do not fit the model" in problem


def test_judging_data():
    good = {"problems": [], "files": {"a.bin": "1", "b.bin": "2"}, "read": 2, "bytes": 9,
            "digest": "d"}  # fmt: skip
    other = {**good, "files": {"a.bin": "1", "b.bin": "3"}}
    assert judge_data(n1=good, n2=good) == [(PASS, "n1", "n2")]
    verdicts = list(DATA.judge(fleet("data", {"n1": good, "n2": other, "n3": good})))
    assert [(v.status, *v.hosts) for v in verdicts] == [(PASS, "n1", "n3"), (FAIL, "n2")]
    assert "b.bin" in verdicts[1].found
    assert "a.bin" not in verdicts[1].found
