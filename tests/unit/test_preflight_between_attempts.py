"""Between two attempts hosts are looked at again: only for what breaks while a run runs."""

from pathlib import Path

import pytest
from preflight_fleets import NO_GPU, gpu_answer

from hpctrain.config import Config
from hpctrain.facts import Facts, HostFacts
from hpctrain.hosts import Host
from hpctrain.launch import restart
from hpctrain.launch.plan import plan_launch
from hpctrain.launch.prepare import Prepared
from hpctrain.launch.request import LaunchRequest
from hpctrain.preflight import run
from hpctrain.preflight.between_attempts import CODES, find_unfit_hosts
from hpctrain.preflight.checks import CHECKS
from hpctrain.preflight.contact import Contact
from hpctrain.preflight.fleet import Answer
from hpctrain.preflight.gather import Gathered
from hpctrain.preflight.need import plan_need

ENVIRON = {"PYTHONPATH": "/work", "SHELL": "/bin/sh"}


def prepared(*, is_trainer):
    request = LaunchRequest(("python", "train.py"), environ=ENVIRON)
    return Prepared(request, Config(), Path("runs/x"), False, is_trainer, ())


@pytest.fixture
def hosts(monkeypatch):
    """Let hosts answer with an error where one is given; return what they were asked."""
    asked, errors = {}, {}

    def answer(tasks, local, ssh_options, python, **_):
        asked.update(tasks)
        assert ssh_options == ("-F", "cfg")
        answers = {}
        for host, task in tasks.items():
            for probe in task.probes:
                error = errors.get((host, probe), "")
                answers.setdefault(probe, {})[host] = Answer(error=error)
        return Gathered(answers, {}, {host: Contact() for host in tasks})

    monkeypatch.setattr(run, "ask_hosts", answer)
    # Judgements have tests of their own: here one without an error says nothing.
    quiet = [
        check._replace(
            judge=lambda fleet, check=check: (
                verdict
                for verdict in check.judge(fleet)
                if verdict.found.startswith("could not be looked at")
            )
        )
        for check in CHECKS
        if check.code == "shm"
    ]
    monkeypatch.setattr("hpctrain.preflight.between_attempts.CHECKS", quiet)
    return asked, errors, quiet[0].probes[0].name


def test_every_code_is_a_checks():
    assert set(CODES) <= {check.code for check in CHECKS}


def test_a_host_on_which_a_check_fails_is_named_with_what_was_found(hosts):
    asked, errors, probe = hosts
    errors["n1", probe] = "no answer within 20 s"
    errors["n2", probe] = "no answer within 20 s"
    found = find_unfit_hosts(
        {"n1": 2, "n2": 2}, prepared(is_trainer=True), ("-F", "cfg"), first="n1", had_gpus=False
    )
    assert set(found) == {"n1", "n2"}
    assert found["n1"].startswith("shm: could not be looked at")
    assert asked["n1"].ranks == 2
    assert asked["n1"].np == 4
    assert asked["n1"].config["train"]["steps"] == Config().train.steps
    assert asked["n1"].environ == {"PYTHONPATH": "/work"}  # what ranks on other hosts get


def test_a_program_of_ones_own_has_no_configuration(hosts):
    asked, errors, probe = hosts
    errors["n1", probe] = "no answer within 20 s"
    assert find_unfit_hosts(
        {"n1": 1}, prepared(is_trainer=False), ("-F", "cfg"), first="n1", had_gpus=False
    )
    assert asked["n1"].config == {}
    assert asked["n1"].program == ("python", "train.py")


def test_without_other_hosts_nobody_is_asked(hosts):
    assert find_unfit_hosts({}, prepared(is_trainer=True), (), first="n1", had_gpus=False) == {}
    assert hosts[0] == {}


def test_the_launchers_own_host_is_asked_without_ssh(hosts, monkeypatch):
    local = []
    ask = run.ask_hosts

    def note(tasks, here, *rest, **more):
        local.append(here)
        return ask(tasks, here, *rest, **more)

    monkeypatch.setattr(run, "ask_hosts", note)
    asked, errors, probe = hosts
    errors["head", probe] = errors["n1", probe] = "no answer within 20 s"
    made = prepared(is_trainer=True)
    found = find_unfit_hosts(
        {"head": 1, "n1": 1}, made, ("-F", "cfg"), frozenset({"head"}), first="head", had_gpus=False
    )
    assert set(found) == {"head", "n1"}
    assert local == [frozenset({"head"})]
    assert set(asked) == {"head", "n1"}


# -- with the checks themselves, on hosts that answer ----------------------------------------------

GIB = 2**30
UNLOADED = {**NO_GPU, "on_bus": 2}
# Two GPUs, of which no rank is said to have too few, and all else in order.
HEALTHY = {
    "gpu-states": gpu_answer(),
    "kernel-log": None,
    "host-state": {"shm": {"total_bytes": 64 * GIB, "free_bytes": 64 * GIB}},
    "disk-space": {
        "folder": "/d", "free_bytes": 10**15, "files": [9, 9], "held_bytes": 0,
    },
    "paths": {
        "folder": "/d", "marked": True, "problem": "", "file_system": "ext4", "cwd": True,
        "temporary": "", "temporary_folder": "/tmp",
    },
}  # fmt: skip


@pytest.fixture
def unfit(monkeypatch):
    """Return how to ask the one host that answers which of its troubles make it unfit."""

    def ask(ranks=2, *, is_trainer=True, first="n1", had_gpus=False, **changed):
        values = {**HEALTHY}
        for probe, change in changed.items():
            name = probe.replace("_", "-")
            values[name] = {**HEALTHY[name], **change}

        def answer(tasks, *_, **__):
            asked = {probe for task in tasks.values() for probe in task.probes}
            answers = {probe: {"n1": Answer(values[probe])} for probe in asked}
            return Gathered(answers, {}, {"n1": Contact()})

        monkeypatch.setattr(run, "ask_hosts", answer)
        monkeypatch.setattr(run, "find_markers", lambda *_: {})
        return find_unfit_hosts(
            {"n1": ranks}, prepared(is_trainer=is_trainer), (), first=first, had_gpus=had_gpus
        )

    return ask


def test_a_healthy_host_goes_on(unfit):
    assert unfit() == {}


def test_a_host_that_has_lost_a_gpu_leaves_and_one_of_a_job_with_a_part_of_them_stays(unfit):
    lost = gpu_answer()
    lost["gpus"] = lost["gpus"][:1]
    assert unfit(gpu_states=lost)["n1"].startswith("gpu-count: 1 GPUs visible for 2 ranks")
    assert unfit(gpu_states=gpu_answer(on_bus=8)) == {}
    assert "no NVIDIA driver" in unfit(gpu_states=UNLOADED, had_gpus=True)["n1"]
    assert unfit(gpu_states=UNLOADED) == {}  # a cluster of CPUs


def test_a_program_with_more_ranks_than_gpus_goes_on_where_it_ran(unfit):
    assert unfit(32, is_trainer=False) == {}
    assert "for 32 ranks" in unfit(32)["n1"]


def test_checkpoints_that_were_saved_make_no_host_unfit(unfit):
    need_bytes = plan_need(Config(), 2).disk_bytes
    left = {"free_bytes": 10**6, "held_bytes": int(need_bytes)}
    assert unfit(disk_space=left) == {}
    full = {"free_bytes": int(need_bytes) - 1, "held_bytes": 0}
    assert unfit(disk_space=full)["n1"].startswith("disk: ")


def test_a_host_that_saves_nothing_may_be_without_a_disk(unfit):
    read_only = {"marked": False, "problem": "Read-only file system"}
    assert unfit(paths=read_only)["n1"].startswith("paths: /d cannot be written")
    assert unfit(paths=read_only, first="launcher") == {}


def test_hosts_are_looked_at_for_the_ranks_that_they_had(monkeypatch):
    """Slots may be more than GPUs, where --np asks for less: nobody is to be held to them."""
    hosts = tuple(Host(name, 16) for name in ("n1", "n2", "n3"))
    request = LaunchRequest(("a",), hosts=hosts, spares=(Host("n4", 4),), np=24)
    facts = Facts(HostFacts("head", cores=4), "openmpi5", "5.0.11", "/mpi/bin/mpirun", "PATH")
    asked = {}

    def record(ranks, prepared, ssh_options, local, **known):
        asked.update(ranks)
        assert known == {"first": "n1", "had_gpus": False}
        return {"n3": "disk: full"}

    monkeypatch.setattr(restart, "find_healthy_hosts", lambda names, *_: dict.fromkeys(names, ""))
    monkeypatch.setattr("hpctrain.preflight.between_attempts.find_unfit_hosts", record)
    run_of = Prepared(request, Config(), Path("runs/x"), False, True, ())
    recovery = restart.Recovery(plan_launch(request, facts), run_of, facts, None, print)
    assert recovery._look() == {"n3": "disk: full"}
    assert asked == {"n1": 16, "n2": 8, "n3": 16, "n4": 4}
