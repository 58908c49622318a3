"""Between two attempts hosts are looked at again: only for what breaks while a run runs."""

from pathlib import Path

import pytest

from hpctrain.config import Config
from hpctrain.launch.prepare import Prepared
from hpctrain.launch.request import LaunchRequest
from hpctrain.preflight import run
from hpctrain.preflight.between_attempts import CODES, find_unfit_hosts
from hpctrain.preflight.checks import CHECKS
from hpctrain.preflight.contact import Contact
from hpctrain.preflight.fleet import Answer
from hpctrain.preflight.gather import Gathered

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
    found = find_unfit_hosts({"n1": 2, "n2": 2}, prepared(is_trainer=True), ("-F", "cfg"))
    assert set(found) == {"n1", "n2"}
    assert found["n1"].startswith("shm: could not be looked at")
    assert asked["n1"].ranks == 2
    assert asked["n1"].np == 4
    assert asked["n1"].config["train"]["steps"] == Config().train.steps
    assert asked["n1"].environ == {"PYTHONPATH": "/work"}  # what ranks on other hosts get


def test_a_program_of_ones_own_has_no_configuration(hosts):
    asked, errors, probe = hosts
    errors["n1", probe] = "no answer within 20 s"
    assert find_unfit_hosts({"n1": 1}, prepared(is_trainer=False), ("-F", "cfg"))
    assert asked["n1"].config == {}
    assert asked["n1"].program == ("python", "train.py")


def test_without_other_hosts_nobody_is_asked(hosts):
    assert find_unfit_hosts({}, prepared(is_trainer=True), ()) == {}
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
    found = find_unfit_hosts({"head": 1, "n1": 1}, made, ("-F", "cfg"), frozenset({"head"}))
    assert set(found) == {"head", "n1"}
    assert local == [frozenset({"head"})]
    assert set(asked) == {"head", "n1"}
