"""The full level: each judgement on values, rounds of pairs, and the parts that need no ranks."""

import itertools
import json
import math
import os
from collections import Counter
from dataclasses import replace

import pytest

from hpctrain.bench.allreduce.results import AllreducePoint, AllreduceResult
from hpctrain.bench.scaling.progress import BenchConsole
from hpctrain.bench.trial import plan_trial
from hpctrain.config import Config, load_config, parse_config
from hpctrain.errors import BenchError
from hpctrain.executor import Command, Completed
from hpctrain.facts import Facts, HostFacts
from hpctrain.hosts import parse_host_list
from hpctrain.launch.plan import plan_launch
from hpctrain.launch.prepare import Prepared
from hpctrain.launch.request import LaunchRequest
from hpctrain.preflight.contact import Contact
from hpctrain.preflight.fleet import Answer, Fleet
from hpctrain.preflight.full import allreduce, pairs, rehearsal, storage
from hpctrain.preflight.full import run as full_run
from hpctrain.preflight.full.device import (
    MATRIX,
    MEMORY_RATE,
    judge_matrix,
    judge_memory_rate,
    read_worker,
)
from hpctrain.preflight.full.place import Place, opened_place
from hpctrain.preflight.full.run import estimate_part_s, plan_parts, run_full
from hpctrain.preflight.full.storage import STORAGE_RATE, judge_storage
from hpctrain.preflight.gather import Gathered
from hpctrain.preflight.request import Request
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

H200 = {
    "device": "cuda:0", "name": "NVIDIA H200", "precision": "bf16", "size": 8192,
    "error_part": 1e-3, "tolerance": 2**-7, "differing": 0, "flops_per_s": 700e12,
    "copy_bytes": 1 << 30, "copy_differing": 0, "copy_bytes_per_s": 4e12,
}  # fmt: skip
CPU = {**H200, "device": "cpu", "name": "CPU", "precision": "fp32", "flops_per_s": 1e11}


def fleet(probe=None, facts=None, **answers):
    tasks = {host: NodeTask(host=host) for host in answers or {"n1": None}}
    known = {h: a if isinstance(a, Answer) else Answer(a) for h, a in answers.items()}
    return Fleet(tasks=tasks, answers={probe: known} if probe else {}, facts=facts or {})


def devices(**answers):
    return fleet("devices", **answers)


def brief(verdicts):
    return [(verdict.status, verdict.hosts) for verdict in verdicts]


# -- devices -------------------------------------------------------------------------------------


def test_good_devices_share_a_line_however_many_they_are():
    answer = [{**H200, "device": f"cuda:{i}", "flops_per_s": (690 + i) * 1e12} for i in range(8)]
    (verdict,) = judge_matrix(devices(n1=answer, n2=answer))
    assert (verdict.status, verdict.hosts) == (PASS, ("n1", "n2"))
    assert "16 x NVIDIA H200: 690 TFLOP/s to 697 TFLOP/s" in verdict.found
    assert "70% of the peak" in verdict.found
    (verdict,) = judge_memory_rate(devices(n1=answer, n2=answer))
    assert "4,000 GB/s" in verdict.found


@pytest.mark.parametrize(
    ("wrong", "status", "words"),
    [
        ({"error_part": 0.01}, FAIL, "wrong product, off by 0.01"),
        ({"error_part": math.nan}, FAIL, "wrong product"),
        ({"differing": 1}, FAIL, "1 elements differ"),
        ({"flops_per_s": 500e12}, WARN, "500 TFLOP/s, 51% of its peak"),
        ({"flops_per_s": 200e12}, FAIL, "200 TFLOP/s, 20% of its peak"),
    ],
)
def test_a_bad_gpu_is_named_with_its_host(wrong, status, words):
    bad = {**H200, "device": "cuda:1", **wrong}
    verdicts = list(judge_matrix(devices(n1=[H200], n2=[H200, bad])))
    assert brief(verdicts) == [(status, ("n2",)), (PASS, ("n1", "n2"))]
    assert words in verdicts[0].found
    assert "cuda:1" in verdicts[0].found
    assert verdicts[0].fix
    assert verdicts[0].expected


def test_a_gpu_that_is_slower_than_its_like_is_named():
    slow = {**H200, "device": "cuda:3", "flops_per_s": 600e12, "copy_bytes_per_s": 2e12}
    all_ = devices(n1=[H200, H200], n2=[H200, slow])
    verdict = next(iter(judge_matrix(all_)))
    assert (verdict.status, verdict.hosts) == (PASS, ("n1", "n2"))  # just not slow enough
    verdict = next(iter(judge_memory_rate(all_)))
    assert (verdict.status, verdict.hosts) == (WARN, ("n2",))
    assert "cuda:3: 2,000 GB/s, 50% of the median" in verdict.found


def test_a_copy_that_changed_something_fails():
    verdicts = list(judge_memory_rate(devices(n1=[{**H200, "copy_differing": 7}])))
    assert brief(verdicts) == [(FAIL, ("n1",))]
    assert "7 numbers changed" in verdicts[0].found


def test_a_cpu_is_reported_and_not_judged_by_its_rate():
    slow = {**CPU, "flops_per_s": 1e9}
    (verdict,) = judge_matrix(devices(n1=[CPU], n2=[CPU], n3=[slow]))
    assert (verdict.status, verdict.hosts) == (PASS, ("n1", "n2", "n3"))
    assert "not judged against a peak" in verdict.found
    assert brief(judge_matrix(devices(n1=[{**CPU, "differing": 2}]))) == [(FAIL, ("n1",))]


@pytest.mark.parametrize("judge", [judge_matrix, judge_memory_rate])
def test_a_device_or_host_without_an_answer_is_never_passed(judge):
    broken = read_worker("cuda:1", Completed(Command(("python",)), 124, "", "no answer in 150 s"))
    verdicts = list(judge(devices(n1=Answer(error="no answer"), n2=[H200, broken])))
    assert brief(verdicts) == [(FAIL, ("n1",)), (FAIL, ("n2",)), (PASS, ("n2",))]
    assert "cuda:1: exit code 124: no answer in 150 s" in verdicts[1].found


def test_the_last_line_of_a_worker_counts():
    done = Completed(Command(("python",)), 0, "a warning\n" + json.dumps(CPU) + "\n", "")
    assert read_worker("cpu", done) == CPU
    assert "error" in read_worker("cpu", done._replace(stdout="[1]\n"))


@pytest.fixture
def small_worker(monkeypatch):
    pytest.importorskip("torch")
    from hpctrain.preflight.full import worker_device

    monkeypatch.setattr(worker_device, "CPU_SIZE", 96)
    monkeypatch.setattr(worker_device, "CPU_COPY_BYTES", 1 << 16)
    monkeypatch.setattr(worker_device, "CPU_TIMED_S", 0.0)
    return worker_device


def test_the_worker_measures_a_cpu(small_worker):
    import torch

    found = small_worker.measure_device(torch.device("cpu"), "bf16")
    assert found.keys() >= H200.keys()
    assert (found["precision"], found["size"], found["differing"]) == ("fp32", 96, 0)
    assert 0 < found["error_part"] < found["tolerance"]
    assert found["flops_per_s"] > 0
    assert (found["copy_bytes"], found["copy_differing"]) == (1 << 16, 0)
    assert brief(judge_matrix(devices(n1=[found]))) == [(PASS, ("n1",))]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_tolerances_hold_for_16_bits_and_catch_one_wrong_row(small_worker, monkeypatch, precision):
    import torch

    cpu = torch.device("cpu")
    right = small_worker.measure_product(cpu, precision, 128, 0.0)
    assert right["error_part"] < right["tolerance"]
    product = torch.Tensor.__matmul__

    def wrong(left, other):
        found = product(left, other)
        if found.dtype != torch.float64:
            found[-1, -1] += 10 * found.abs().max()
        return found

    monkeypatch.setattr(torch.Tensor, "__matmul__", wrong)
    broken = small_worker.measure_product(cpu, precision, 64, 0.0)
    assert broken["error_part"] > broken["tolerance"]
    assert broken["differing"] == 3  # once in each repeat


# -- storage -------------------------------------------------------------------------------------


def test_what_is_written_is_read_back_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_BYTES", 8 << 20)
    task = NodeTask(host="n1", run_path=str(tmp_path / "runs" / "r"))
    found = storage.probe_storage(task)
    assert found["folder"] == str(tmp_path)
    assert (found["written_bytes"], found["read_bytes"]) == (8 << 20, 8 << 20)
    assert found["damaged_blocks"] == 0
    assert list(tmp_path.iterdir()) == []
    (verdict,) = judge_storage(fleet("storage", n1=found))
    assert (verdict.code, verdict.hosts) == ("storage-rate", ("n1",))
    assert verdict.status in (PASS, WARN)  # a busy disk may be slow


def test_a_block_that_comes_back_changed_is_counted(tmp_path, monkeypatch):
    past_cache = storage._go_past_cache

    def damage(descriptor):
        os.pwrite(descriptor, b"changed!", (4 << 20) + 99)
        return past_cache(descriptor)

    monkeypatch.setattr(storage, "_go_past_cache", damage)
    found = {"folder": "/d", "free_bytes": 1, **storage.measure_storage(tmp_path, 8 << 20)}
    assert found["damaged_blocks"] == 1
    (verdict,) = judge_storage(fleet("storage", n1=found))
    assert verdict.status == FAIL
    assert "1 of 2 blocks" in verdict.found


DISK = {"folder": "/d", "free_bytes": 1 << 40, "written_bytes": 256 << 20, "write_s": 1.0,
        "read_bytes": 256 << 20, "read_s": 0.5, "direct": True, "damaged_blocks": 0}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({}, PASS, "/d, 256 MiB a host, reads past the cache (O_DIRECT): write 0.268 GB/s"),
        ({"direct": False}, PASS, "perhaps from the cache"),
        ({"write_s": 100.0}, WARN, "2.7 MB/s"),
        ({"full": True, "free_bytes": 9e6}, FAIL, "/d: 9 MB free"),
    ],
)
def test_disks(change, status, words):
    (verdict,) = judge_storage(fleet("storage", n1={**DISK, **change}))
    assert verdict.status == status
    assert words in verdict.found
    assert brief(judge_storage(fleet("storage", n1=Answer(error="hangs")))) == [(FAIL, ("n1",))]


# -- all-reduce and pairs ------------------------------------------------------------------------


def point(wrong=0, bytes_=16 << 20):
    return AllreducePoint(backend="horovod", bytes_=bytes_, repeats_s=(0.01,) * 3, wrong=wrong, n=4,
                          checked=1000)  # fmt: skip


def summed(*points):
    return AllreduceResult(n=4, nodes=2, placement="2 nodes", points=points).as_json()


@pytest.mark.parametrize(
    ("fact", "status", "words"),
    [
        (summed(point(), point(bytes_=4)), PASS, "4 ranks: 16M at 2.52 GB/s busbw"),
        (summed(point(wrong=3)), FAIL, "3 wrong of 1000"),
        ({"error": "rank 1 on n2 failed first"}, FAIL, "rank 1 on n2"),
        ({"skip": "after a failure"}, SKIP, "after a failure"),
    ],
)
def test_all_reduce(fact, status, words):
    (verdict,) = allreduce.judge_all_reduce(fleet(facts={"all-reduce": fact}))
    assert verdict.status == status
    assert words in verdict.found


@pytest.mark.parametrize("count", range(2, 13))
def test_every_pair_is_tried_once_and_no_host_twice_in_a_round(count):
    hosts = [f"n{i}" for i in range(count)]
    rounds = pairs.plan_rounds(hosts)
    for each in rounds:
        assert max(Counter(itertools.chain(*each)).values()) == 1
    tried = [pair for each in rounds for pair in each]
    assert sorted(tried) == sorted(itertools.combinations(hosts, 2))
    assert len(rounds) == (count - 1 if count % 2 == 0 else count)


@pytest.mark.parametrize("count", [13, 64, 1001])
def test_of_many_hosts_each_gets_some_partners(count):
    hosts = [f"n{i:04d}" for i in range(count)]
    rounds = pairs.plan_rounds(hosts)
    assert len(rounds) == pairs.MOST_ROUNDS
    tried = [pair for each in rounds for pair in each]
    assert len(set(tried)) == len(tried)
    partners = Counter(itertools.chain(*tried))
    assert set(partners) == set(hosts)
    assert min(partners.values()) >= pairs.MOST_ROUNDS - 1


def rated(**rates):
    """Return what pairs found: rates (GB/s) by the pair's name, "ab" for a and b."""
    found = []
    for pair, rate in rates.items():
        each = {"hosts": tuple(pair), "busbw_gb_per_s": rate, "wrong": 0, "checked": 9, "bytes": 4}
        found.append(each if isinstance(rate, float) else {"hosts": tuple(pair), **rate})
    return fleet(facts={"pairs": {"pairs": found, "possible": len(found)}})


def test_a_host_with_a_slow_link_is_told_from_its_partners():
    verdicts = list(pairs.judge_pairs(rated(ab=1.0, ac=0.1, bc=0.12)))
    assert brief(verdicts) == [(FAIL, ("c",)), (FAIL, ("c",)), (PASS, ())]
    assert "between a and c: 0.1 GB/s busbw, 10% of what other pairs have" in verdicts[0].found
    assert "-H a:1,c:1" in verdicts[0].fix


def test_a_slow_way_between_two_good_hosts_names_both():
    verdicts = list(pairs.judge_pairs(rated(ab=0.4, ac=1.0, bc=1.0)))
    assert brief(verdicts) == [(WARN, ("a", "b")), (PASS, ())]
    assert "2 pairs of hosts: 1 GB/s to 1 GB/s" in verdicts[1].found.replace("1 to", "1 GB/s to")


def test_wrong_sums_and_failed_launches_name_their_pair():
    wrong = {"busbw_gb_per_s": 1.0, "wrong": 2, "checked": 100, "bytes": 4}
    verdicts = list(pairs.judge_pairs(rated(ab=wrong, ac=1.0, bc={"error": "hung"})))
    assert brief(verdicts) == [(FAIL, ("b",)), (FAIL, ("b",)), (PASS, ())]
    assert "between a and b: 2 of 100 elements are wrong" in verdicts[0].found
    assert "between b and c: hung" in verdicts[1].found
    assert brief(pairs.judge_pairs(rated(ab={"error": "hung"}))) == [(FAIL, ("a", "b"))]


def test_one_pair_has_nothing_to_be_compared_with_and_says_so():
    (verdict,) = pairs.judge_pairs(rated(ab=1.0))
    assert verdict.status == PASS
    assert "none to compare it with" in verdict.found
    (verdict,) = pairs.judge_pairs(fleet(facts={"pairs": {"skip": "one host"}}))
    assert verdict.status == SKIP


# -- the rehearsal -------------------------------------------------------------------------------

REHEARSED = {
    "path": "/r", "np": 4, "precision": "fp32", "device": "cpu", "step_time_s": 0.5,
    "losses": {"1": 5.0, "2": 4.0, "3": 3.5, "4": 3.25, "5": 3.0},
    "exposed_comm_s": 0.1, "params": 10_000_000,
    "resumed": {"4": 3.25, "5": 3.0}, "saved_bytes": 10_000_000, "peak_bytes": None,
}  # fmt: skip


def rehearsed(**change):
    (verdict,) = rehearsal.judge_rehearsal(fleet(facts={"rehearsal": {**REHEARSED, **change}}))
    return verdict


def test_the_same_losses_pass():
    verdict = rehearsed()
    assert verdict.status == PASS
    assert verdict.found == (
        "5 steps on 4 ranks (cpu, fp32), 0.5 s each, 0.01 GB saved; resumed at step 3 its losses "
        "are the same bit for bit"
    )


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"resumed": {"4": 3.25, "5": 3.0 + 4e-7}}, FAIL, "step 5: 3.0000004, before 3"),
        ({"resumed": {"4": 3.25, "5": 3.0 + 4e-7}, "device": "cuda:0"}, PASS, "to within 1e-07"),
        ({"resumed": {"4": 3.25, "5": 3.1}, "device": "cuda:0"}, FAIL, "is another one"),
        ({"resumed": {"4": 3.25, "5": 3.1}, "precision": "bf16"}, FAIL, "is another one"),
        ({"resumed": {"4": 3.25}}, FAIL, "no loss of step 5"),
        ({"resumed": {"4": 3.25, "5": "nan"}}, FAIL, "no loss of step 5"),
        ({"losses": {"4": None, "5": 3.0}}, FAIL, "no loss of step 4"),
        ({"error": "rank 0 failed: out of memory"}, FAIL, "out of memory"),
        ({"skip": "a COMMAND of your own"}, SKIP, "COMMAND"),
        ({"peak_bytes": 61e9}, PASS, "61 GB of a GPU"),
    ],
)
def test_rehearsals(change, status, words):
    verdict = rehearsed(**change)
    assert verdict.status == status
    assert words in verdict.found


def test_a_training_that_mostly_waits_is_told_what_link_would_do():
    fact = {"rehearsal": {**REHEARSED, "exposed_comm_s": 0.4}}
    warning, verdict = rehearsal.judge_rehearsal(fleet(facts=fact))
    assert (warning.status, verdict.status) == (WARN, PASS)
    assert warning.found == (
        "80% of a step waits for the exchange of gradients: 0.06 GB each way, 0.6 GB/s to hide it"
    )
    alone = {"rehearsal": {**REHEARSED, "exposed_comm_s": 0.4, "np": 1}}
    assert [v.status for v in rehearsal.judge_rehearsal(fleet(facts=alone))] == [PASS]


def test_the_configuration_is_the_true_one_cut_short(tmp_path):
    config = parse_config(
        "[train]\ntokens = 1000000\nglobal_batch_size = 6\neval_sequences = 4000\n"
        "[checkpoint]\nkeep_last = 1\nresume = '/old'\nsave = 'off'\n[optim]\nlr = 0.5\n"
    )
    whole = rehearsal.plan_config(config)
    assert (whole.train.steps, whole.train.tokens) == (5, None)
    assert whole.train.eval_sequences == 64
    assert (whole.checkpoint.save, whole.checkpoint.every_steps) == ("on", 3)
    assert whole.checkpoint.keep_last == 2  # the third step's is there after the fifth's
    assert whole.checkpoint.resume == "none"
    again = rehearsal.plan_config(config, tmp_path)
    assert (again.checkpoint.resume, again.checkpoint.save) == (str(tmp_path), "off")
    for cut in (whole, again):
        assert (cut.model, cut.data, cut.optim, cut.comm) == (
            config.model, config.data, config.optim, config.comm
        )  # fmt: skip
        assert replace(cut.train, steps=1, tokens=None) == replace(
            config.train, steps=1, tokens=None, eval_sequences=64, eval_every_steps=0
        )


# -- what is started, and what is left -----------------------------------------------------------


def request_for(tmp_path, hosts="n1:2,n2:2", config=None, tasks=None):
    config = config or Config()
    host_list = parse_host_list(hosts).hosts if hosts else None
    asked = LaunchRequest(("true",), hosts=host_list, ssh_configs=(str(tmp_path / "ssh"),))
    facts = Facts(launcher=HostFacts("head", cores=2), mpi_flavour="openmpi5",
                  mpi_version="5.0.11", mpirun="/mpi/mpirun")  # fmt: skip
    prepared = Prepared(asked, config, tmp_path / "runs" / "r", False, True, ())
    names = [host.name for host in host_list or ()] or ["head"]
    return Request(
        tasks=tasks or {name: NodeTask(host=name, config={"train": {}}) for name in names},
        local=frozenset(names), plan=plan_launch(asked, facts), prepared=prepared,
    )  # fmt: skip


def test_a_trial_is_told_all_that_the_run_would_be_told(tmp_path):
    config = parse_config(
        "[launch]\nsubnet = '10.0.0.0/24'\nnp = 9\nhosts = 'x'\nforward = ['MY_*']\n"
        "spares = 1\nmin_np = 4\nmax_restarts = 3\nrequire_transport = 'ib'\n"
        "[comm]\nbackend = 'ddp'\n"
    )
    place = Place(request=request_for(tmp_path, config=config), folder=tmp_path)
    trial = rehearsal.plan_part(place, "rehearsal", rehearsal.plan_config(config))
    words = plan_trial(trial).argv
    assert words[words.index("--np") + 1] == "4"
    assert [host.name for host in trial.hosts] == ["n1", "n2"]
    assert trial.ssh_config == tmp_path / "ssh"
    overrides = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    told = load_config(tmp_path / "rehearsal-preflight.toml", overrides)
    assert (told.checkpoint.save, told.checkpoint.every_steps) == ("on", 3)
    assert (told.train.steps, told.train.eval_sequences) == (5, 64)
    assert (told.launch.subnet, told.launch.forward) == ("10.0.0.0/24", ("MY_*",))
    assert (told.launch.np, told.launch.hosts, told.comm.backend) == (None, None, "ddp")
    # Two hosts and a spare would be one and a spare; a trial that fails is not tried again.
    assert (told.launch.spares, told.launch.min_np, told.launch.max_restarts) == (0, None, 0)
    assert told.launch.require_transport == "none"


def test_pairs_are_one_rank_a_host(tmp_path, monkeypatch):
    begun = []

    def run_trial(trial, on_step=None, stop=None):
        begun.append([(host.name, host.slots) for host in trial.hosts])
        assert trial.np == 2
        return tmp_path

    monkeypatch.setattr(pairs, "run_trial", run_trial)
    result = AllreduceResult(n=2, nodes=2, placement="x", points=(point(), point(bytes_=4)))
    monkeypatch.setattr(pairs, "read_allreduce", lambda path: result)
    place = Place(request=request_for(tmp_path, "n1:8,n2:8,n3:8"), folder=tmp_path)
    found = pairs.run_pairs(place)
    assert sorted(begun) == [[("n1", 1), ("n2", 1)], [("n1", 1), ("n3", 1)], [("n2", 1), ("n3", 1)]]
    assert [pair["wrong"] for pair in found["pairs"]] == [0, 0, 0]
    assert found["possible"] == 3
    alone = Place(request=request_for(tmp_path, None), folder=tmp_path)
    assert "skip" in pairs.run_pairs(alone)


def test_ctrl_c_stops_pairs_that_run(tmp_path, monkeypatch):
    waited = []

    def run_trial(trial, on_step=None, stop=None):
        if trial.name.endswith("0"):
            raise KeyboardInterrupt
        waited.append(stop.wait(30))
        raise BenchError("stopped")

    monkeypatch.setattr(pairs, "run_trial", run_trial)
    place = Place(request=request_for(tmp_path, "n1,n2,n3,n4"), folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        pairs.run_pairs(place)
    assert waited in ([True], [])


def test_nothing_is_left_of_the_folder_and_those_that_it_needed(tmp_path):
    request = request_for(tmp_path)
    with opened_place(request, lambda step: None) as place:
        assert place.folder.parent == tmp_path / "runs"
        (place.folder / "rehearsal").mkdir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    with pytest.raises(KeyboardInterrupt), opened_place(request, lambda step: None):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [tmp_path / "runs"]  # it was there before
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ({"n1": NodeTask(host="n1", program=("python", "t.py"))}, "a COMMAND of your own"),
        ({"n1": NodeTask(host="n1")}, "no training was named"),
    ],
)
def test_what_cannot_be_rehearsed_is_skipped_with_the_reason(tmp_path, tasks, reason):
    place = Place(request=request_for(tmp_path, "n1:1", tasks=tasks), folder=tmp_path)
    assert reason in rehearsal.run_rehearsal(place)["skip"]


# -- the parts in their order --------------------------------------------------------------------

ALL = (MATRIX, MEMORY_RATE, STORAGE_RATE, allreduce.ALL_REDUCE, pairs.PAIRS, rehearsal.REHEARSAL)


@pytest.fixture
def parts(monkeypatch):
    """Answer for hosts and launches; return what was done, in its order."""
    done = []

    def ask_hosts(tasks, *_, **__):
        (probe,) = {name for task in tasks.values() for name in task.probes}
        done.append(probe)
        good = {"devices": [H200], "storage": DISK}[probe]
        answers = {probe: {host: Answer(good) for host in tasks if host != "mute"}}
        silent = {host: "no answer within 9 s" for host in tasks if host == "mute"}
        return Gathered(answers, silent, {host: Contact() for host in tasks})

    def launch(code, fact):
        return lambda place: done.append(code) or fact

    monkeypatch.setattr(full_run, "ask_hosts", ask_hosts)
    facts = {"all-reduce": summed(point()), "pairs": {"skip": "x"}, "rehearsal": REHEARSED}
    monkeypatch.setattr(full_run, "LAUNCHES", {c: launch(c, fact) for c, fact in facts.items()})
    return done


def fully(request, **more):
    known = Fleet(tasks=request.tasks, local=request.local)
    return run_full(request, known, ALL, BenchConsole(is_terminal=False), **more)


def test_one_part_after_the_other_and_devices_once(tmp_path, parts, capsys):
    after, verdicts = fully(request_for(tmp_path))
    assert parts == ["devices", "storage", "all-reduce", "pairs", "rehearsal"]
    assert [v.code for v in verdicts] == [check.code for check in ALL]
    assert {v.status for v in verdicts} == {PASS, SKIP}
    assert after.facts["rehearsal"] == REHEARSED
    assert "1/5 devices: PASS" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_after_a_failure_no_ranks_are_started(tmp_path, parts):
    _, verdicts = fully(request_for(tmp_path), failed=[Verdict("torch", FAIL, "x")])
    assert parts == ["devices", "storage"]
    assert [v.status for v in verdicts] == [PASS, PASS, PASS, SKIP, SKIP, SKIP]
    assert "torch" in verdicts[-1].found


def test_a_host_that_falls_silent_fails_and_keeps_ranks_from_starting(tmp_path, parts):
    _, verdicts = fully(request_for(tmp_path, "n1:1,mute:1"))
    assert parts == ["devices", "storage"]
    assert [(v.code, v.status) for v in verdicts if v.hosts == ("mute",)] == [
        ("matrix", FAIL), ("memory-rate", FAIL)
    ]  # fmt: skip
    assert [v.status for v in verdicts[-3:]] == [SKIP] * 3


def test_parts_have_an_estimate():
    for part in plan_parts(ALL):
        assert 0 < estimate_part_s(part, 2) < 600
        assert part.checks
    (part,) = plan_parts([pairs.PAIRS])
    assert estimate_part_s(part, 4000) > estimate_part_s(part, 40)
