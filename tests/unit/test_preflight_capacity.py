"""Preflight's checks of memory, limits, disk and cores, and the need that they compare with."""

import os
from dataclasses import replace

import pytest
from preflight_fleets import NO_GPU, fleet, gpu_answer, only, statuses

from hpctrain.config import as_tables, parse_config
from hpctrain.errors import ConfigError
from hpctrain.estimate.memory import estimate_memory
from hpctrain.estimate.model import cost_model
from hpctrain.preflight.checks.cpu_cores import check_cores
from hpctrain.preflight.checks.disk import DISK_SPACE, count_held_bytes, judge_disk
from hpctrain.preflight.checks.host_state import HOST, available_bytes
from hpctrain.preflight.checks.memlock import judge_memlock
from hpctrain.preflight.checks.memory import judge_memory
from hpctrain.preflight.checks.open_files import check_open_files, judge_open_files
from hpctrain.preflight.checks.shm import check_shm
from hpctrain.preflight.need import plan_need
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN
from hpctrain.train.presets import resolve_model

GIB = 2**30
MIB = 2**20


@pytest.fixture
def run_need():
    return plan_need(parse_config(""), 2)


HOST_VALUE = {
    "available_bytes": 100 * GIB,
    "shm": {"total_bytes": 64 * GIB, "free_bytes": 64 * GIB},
    "memlock": [None, None],
    "may_lock": False,
    "nofile": [1048576, 1048576],
    "cores": 8,
    "cpus": 16,
    "omp_num_threads": None,
}


def task(ranks=4, np=8, **more):
    return NodeTask(host="n1", ranks=ranks, np=np, **more)


# -- what a run needs ----------------------------------------------------------------------------


def test_the_need_is_the_estimate_of_the_configuration():
    config = parse_config("", overrides=["model.preset=small", "train.batch_size_per_rank=16"])
    need = plan_need(config, 8)
    size = resolve_model(config.model)
    expected = estimate_memory(size, need.job.load(8))
    assert need.peak_bytes == expected.peak_bytes
    assert need.needed_bytes == expected.needed_bytes > need.peak_bytes
    assert need.checkpoint_bytes == cost_model(size).checkpoint_bytes
    assert need.snapshot_bytes == need.checkpoint_bytes / 8


@pytest.mark.parametrize(
    ("overrides", "checkpoints"),
    [
        ([], 1),  # 300 steps, one at the end
        (["checkpoint.every_steps=10"], 4),  # keep_last 3, and one being written
        (["checkpoint.every_steps=10", "checkpoint.keep_last=1"], 2),
        (["checkpoint.every_steps=100"], 3),  # there never are more than are written
        (["checkpoint.every_steps=10", "checkpoint.keep_every_steps=100"], 7),
        (["checkpoint.every_steps=0"], 1),
        (["checkpoint.save=off"], 0),
    ],
)
def test_checkpoints_that_lie_there_at_once(overrides, checkpoints):
    need = plan_need(parse_config("", overrides=overrides), 2)
    assert need.checkpoints == checkpoints
    assert need.disk_bytes == checkpoints * need.checkpoint_bytes


def test_a_sharded_optimizer_needs_less_memory():
    base = ["model.preset=small"]
    whole = plan_need(parse_config("", overrides=base), 8)
    sharded = plan_need(parse_config("", overrides=[*base, "optim.sharded=true"]), 8)
    assert sharded.needed_bytes < whole.needed_bytes


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model.factory=mine:model"], "a model of your own"),
        (["train.global_batch_size=2"], "fewer sequences"),
        (["model.num_heads=3"], "does not divide"),
    ],
)
def test_what_cannot_be_estimated_says_why(overrides, says):
    with pytest.raises(ConfigError, match=says):
        plan_need(parse_config("", overrides=overrides), 4)


# -- memory --------------------------------------------------------------------------------------


def memory(value, need, *, gpus=NO_GPU, ranks=4, config=None):
    return list(judge_memory(fleet(
        HOST.name, {"n1": {**HOST_VALUE, **value}}, ranks=ranks, config=config,
        facts={"need": need}, gpu_states={"n1": gpus},
    )))  # fmt: skip


def test_memory_on_the_cpu(run_need):
    need = replace(run_need, peak_bytes=20.0 * GIB, snapshot_bytes=2.0 * GIB)
    assert need.host_bytes(4, on_gpu=False) == 4 * (4e8 + 22 * GIB)
    assert statuses(memory({}, need)) == [(PASS, ("n1",))]
    verdict = only(memory({"available_bytes": 80 * GIB}, need))
    assert verdict.status == FAIL
    assert verdict.found == "80.0 GiB free for 4 ranks"
    assert verdict.expected == "89.5 GiB, by the estimate"
    assert only(memory({"available_bytes": 92 * GIB}, need)).status == WARN


def test_on_gpus_tensors_are_not_in_main_memory(run_need):
    need = replace(run_need, peak_bytes=70.0 * GIB, snapshot_bytes=2.0 * GIB)
    assert statuses(memory({}, need, gpus=gpu_answer(), ranks=2)) == [(PASS, ("n1",))]
    on_cpu = {"train": {"device": "cpu"}}
    assert only(memory({}, need, gpus=gpu_answer(), ranks=2, config=on_cpu)).status == FAIL


def test_a_program_that_is_not_known_needs_python_and_torch():
    assert only(memory({}, None)).status == PASS
    assert only(memory({"available_bytes": GIB}, None)).status == WARN


def test_a_host_without_ranks_needs_nothing(run_need):
    assert only(memory({"available_bytes": 0}, run_need, ranks=0)).status == SKIP


def test_a_need_that_is_not_known_is_told():
    verdicts = memory({}, "model.factory: a model of your own")
    assert [verdict.status for verdict in verdicts] == [WARN, PASS]
    assert "a model of your own" in verdicts[0].found


MEMINFO = "MemTotal:       32877664 kB\nMemFree:         1000000 kB\nMemAvailable:   20000000 kB\n"


def test_the_least_of_the_machine_and_of_every_group_above_counts(tmp_path):
    own = tmp_path / "slurm" / "job_7"
    own.mkdir(parents=True)
    free = 20000000 * 1024
    assert available_bytes(MEMINFO, "0::/slurm/job_7\n", tmp_path) == free
    (own / "memory.max").write_text("max\n")
    (own / "memory.current").write_text("1000\n")
    assert available_bytes(MEMINFO, "0::/slurm/job_7\n", tmp_path) == free
    (own.parent / "memory.max").write_text(f"{8 * GIB}\n")
    (own.parent / "memory.current").write_text(f"{6 * GIB}\n")
    (own.parent / "memory.stat").write_text(f"anon 1\ninactive_file {GIB}\n")
    assert available_bytes(MEMINFO, "0::/slurm/job_7\n", tmp_path) == 3 * GIB
    (own / "memory.max").write_text("500\n")
    assert available_bytes(MEMINFO, "0::/slurm/job_7\n", tmp_path) == 0
    assert available_bytes(MEMINFO, "12:memory:/old\n", tmp_path) == free  # version 1


def test_this_machine_answers():
    value = HOST.look(task())
    assert set(value) == set(HOST_VALUE)
    assert value["available_bytes"] > 0
    assert value["cores"] <= value["cpus"]


# -- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shm", "ranks", "status"),
    [
        ({"total_bytes": 64 * GIB, "free_bytes": 64 * GIB}, 8, PASS),
        ({"total_bytes": 64 * MIB, "free_bytes": 64 * MIB}, 2, WARN),  # what a container gets
        ({"total_bytes": 64 * MIB, "free_bytes": 12 * MIB}, 2, FAIL),
        ({"total_bytes": 64 * MIB, "free_bytes": 64 * MIB}, 1, SKIP),
        (None, 2, FAIL),
    ],
)
def test_shared_memory(shm, ranks, status):
    verdict = check_shm(task(ranks), {**HOST_VALUE, "shm": shm})
    assert verdict.status == status
    assert ("--shm-size" in verdict.fix) == (status in (FAIL, WARN))


def port(state="4: ACTIVE"):
    return {
        "device": "mlx5_0", "number": 1, "state": state, "rate": "200 Gb/sec (4X HDR)",
        "link_layer": "InfiniBand", "driver": "mlx5_core",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "may_lock", "ports", "status"),
    [
        ([65536, 65536], False, [], SKIP),
        ([65536, 65536], False, [port("1: DOWN")], SKIP),
        ([65536, 65536], False, [port()], FAIL),
        ([65536, 65536], True, [port()], PASS),
        ([None, None], False, [port()], PASS),
    ],
)
def test_locked_memory_counts_where_there_is_rdma(limits, may_lock, ports, status):
    verdicts = list(memlock(limits, may_lock=may_lock, n1=ports, n2=ports))
    assert [verdict.status for verdict in verdicts] == [status, status]
    assert ("limits.conf" in verdicts[0].fix) == (status == FAIL)


def test_locked_memory_counts_where_ranks_use_rdma():
    assert only(memlock([65536, 65536], n1=[port()])).status == SKIP  # within one host
    for environ in ({"NCCL_IB_DISABLE": "1"}, {"NCCL_NET": "Socket"}):
        found = memlock([65536, 65536], environ=environ, n1=[port()], n2=[port()])
        assert [verdict.status for verdict in found] == [WARN, WARN]


def memlock(limits, *, may_lock=False, environ=None, **ports):
    value = {**HOST_VALUE, "memlock": limits, "may_lock": may_lock}
    return judge_memlock(
        fleet(HOST.name, dict.fromkeys(ports, value), rdma_ports=ports, environ=environ)
    )


@pytest.mark.parametrize(
    ("soft", "np", "status"),
    [(1024, 64, PASS), (1024, 2048, WARN), (64, 8, FAIL), (None, 4096, PASS)],
)
def test_open_files(soft, np, status):
    verdict = check_open_files(task(8, np), {**HOST_VALUE, "nofile": [soft, None]})
    assert verdict.status == status
    assert ("nofile" in verdict.fix) == (status in (FAIL, WARN))


def test_the_launching_machine_opens_files_for_all_ranks():
    hosts = {f"n{number}": HOST_VALUE for number in range(100)}
    few = list(judge_open_files(fleet(HOST.name, hosts, ranks=8, facts={"open-files": 1024})))
    assert (few[0].status, few[0].hosts) == (FAIL, ())
    assert few[0].found == "the launching machine's hard limit is 1024"
    assert few[0].expected == "2528 for 800 ranks"
    for most in (4096, None):
        found = judge_open_files(fleet(HOST.name, hosts, ranks=8, facts={"open-files": most}))
        assert {verdict.status for verdict in found} == {PASS}


@pytest.mark.parametrize(
    ("ranks", "omp", "launch", "status", "found"),
    [
        (4, None, {}, PASS, "4 ranks x 2 threads on 8 cores"),
        (4, "8", {}, WARN, "4 ranks x 8 threads on 8 cores"),
        (4, None, {"threads_per_rank": 5}, WARN, "4 ranks x 5 threads"),
        (20, None, {}, WARN, "20 ranks x 1 threads on 8 cores"),
        (8, "2", {}, PASS, "8 ranks x 2 threads"),  # hardware threads
        (0, None, {}, SKIP, "no ranks"),
    ],
)
def test_cores_against_threads(ranks, omp, launch, status, found):
    config = {"launch": launch}
    verdict = check_cores(task(ranks, config=config), {**HOST_VALUE, "omp_num_threads": omp})
    assert verdict.status == status
    assert found in verdict.found


# -- disk ----------------------------------------------------------------------------------------


SAVING = as_tables(parse_config(""))
SHARDED = as_tables(parse_config("[optim]\nsharded = true"))


def disk(free, need=None, files=(1000, 1000), held=0, config=SAVING):
    return disks(free, need, ["n1"], files=files, held=held, config=config)[0]


def disks(free, need, hosts, *, files=(1000, 1000), held=0, config=SAVING, first=None):
    value = {"folder": "/scratch", "free_bytes": free, "files": list(files), "held_bytes": held}
    facts = {"need": need, **({"paths": first} if first else {})}
    return list(judge_disk(fleet(
        DISK_SPACE.name, dict.fromkeys(hosts, value), facts=facts, config=config,
    )))  # fmt: skip


def test_room_for_checkpoints(run_need):
    need = replace(run_need, checkpoint_bytes=16.0 * GIB, checkpoints=4)
    assert disk(100 * GIB, need).status == PASS
    verdict = disk(40 * GIB, need)
    assert verdict.status == FAIL
    assert verdict.found == "40.0 GiB free at /scratch"
    assert verdict.expected == "64.0 GiB: 4 checkpoints of 16.0 GiB"
    assert "--runs-dir" in verdict.fix
    assert disk(int(64.5 * GIB), need).status == WARN


def test_checkpoints_that_lie_there_already_need_no_more_room(run_need):
    """As between two attempts of a run that has saved, or where one goes on."""
    need = replace(run_need, checkpoint_bytes=16.0 * GIB, checkpoints=4)
    assert disk(20 * GIB, need).status == FAIL
    assert disk(20 * GIB, need, held=48 * GIB).status == PASS
    assert disk(20 * GIB, need, held=64 * GIB).status == PASS
    assert disk(MIB, need, held=80 * GIB).status == WARN  # nothing is left for logs
    verdict = disk(2 * GIB, need, held=48 * GIB)  # somebody else has filled the disk
    assert verdict.status == FAIL
    assert verdict.found == "2.0 GiB free at /scratch, and 48.0 GiB in the run's checkpoints"


def test_hosts_that_write_no_checkpoint_fail_for_want_of_no_room(run_need):
    need = replace(run_need, checkpoint_bytes=16.0 * GIB, checkpoints=4)
    found = disks(20 * GIB, need, ["n1", "n2"])
    assert statuses(found) == [(FAIL, ("n1",)), (WARN, ("n2",))]
    assert "which this host does not write" in found[1].expected
    found = disks(20 * GIB, need, ["n1", "n2"], first="launcher")
    assert [verdict.status for verdict in found] == [WARN, WARN]
    found = disks(20 * GIB, need, ["n1", "n2"], config=SHARDED)
    assert [verdict.status for verdict in found] == [FAIL, FAIL]


def test_what_checkpoints_take_is_counted(tmp_path):
    checkpoints = tmp_path / "run" / "checkpoints"
    for name, size in (("step-00000010", 300), (".step-00000020.tmp", 50), ("set-aside", 7000)):
        (checkpoints / name).mkdir(parents=True)
        (checkpoints / name / "rank-00000.safetensors").write_bytes(bytes(size))
    (checkpoints / "latest").write_text("step-00000010")
    assert count_held_bytes(checkpoints) == 350  # a run does not remove what it has set aside
    value = DISK_SPACE.look(task(run_path=str(tmp_path / "run")))
    assert value["held_bytes"] == 350


def test_a_disk_without_an_estimate():
    assert disk(100 * GIB).status == PASS
    assert disk(MIB).status == WARN
    assert disk(100 * GIB, files=(1000, 0)).status == FAIL
    assert disk(100 * GIB, files=(1000, 0), config={}).status == WARN  # a program of one's own
    assert disk(100 * GIB, files=(0, 0)).status == PASS  # a file system that counts none


def test_the_nearest_folder_that_is_there_is_asked(tmp_path):
    value = DISK_SPACE.look(task(run_path=str(tmp_path / "runs" / "new")))
    assert (value["folder"], value["held_bytes"]) == (str(tmp_path), 0)
    assert value["free_bytes"] == pytest.approx(
        os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize, rel=0.5
    )
