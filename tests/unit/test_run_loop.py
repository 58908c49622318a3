"""The loop around attempts: what is written and swept, however one ends. Nothing is started."""

import errno
import os
import signal
import time
from dataclasses import replace

import pytest

from hpctrain.config import Config
from hpctrain.config.schema import LaunchConfig
from hpctrain.errors import LaunchError, PlanError
from hpctrain.facts import Facts, HostFacts, Interface
from hpctrain.hosts import parse_host_list
from hpctrain.launch import leftovers as leftovers_module
from hpctrain.launch import restart, start
from hpctrain.launch.crew import Crew
from hpctrain.launch.leftovers import find_earlier_leftovers, leftovers_of
from hpctrain.launch.outcome import Outcome, RankFailure
from hpctrain.launch.plan import plan_launch
from hpctrain.launch.prepare import Prepared
from hpctrain.launch.request import LaunchRequest
from hpctrain.launch.signals import StopAsked
from hpctrain.launch.sweep import Sweep
from hpctrain.rundir import RunDirectory, read_events

HEAD = HostFacts("head", cores=8, interfaces=(Interface("eth0", ("10.0.0.1/24",)),))
FACTS = Facts(
    HEAD, "openmpi5", "5.0.11", "/opt/mpi/bin/mpirun", "PATH",
    addresses={"n1": ("10.0.0.11",), "n2": ("10.0.0.12",)},
)  # fmt: skip
DONE = Outcome("done", 0, 1.0, attempt_id="r.1")
FAILED = Outcome(
    "failed", 7, 1.0, RankFailure(1, "n2", 7, None, "exit code 7"), needs_sweep=True,
    attempt_id="r.1", retryable=True, suspects=(1,),
)  # fmt: skip


class Loop:
    """A run on two hosts whose attempts end as they are told to."""

    def __init__(self, folder, monkeypatch, *, max_restarts=0, resume=False, is_trainer=False):
        self.endings, self.swept, self.sweeps, self.waited = [], [], [], []
        launch = LaunchConfig(max_restarts=max_restarts, cut_off_s=60.0, grace_s=5.0)
        request = LaunchRequest(
            ("true",), launch, parse_host_list("n1:1,n2:1").hosts, run_path=str(folder / "r"),
            environ={"PATH": "/usr/bin"},
        )  # fmt: skip
        self.prepared = Prepared(
            request, Config(launch=launch), folder / "r", resume, is_trainer, ()
        )
        self.path = folder / "r"
        loop = self

        class Attempt:
            def __init__(self, plan, run, console, number):
                self.attempt_id, self.started_at_s = f"r.{number}", time.monotonic()

            def run(self):
                ending = loop.endings.pop(0)
                if isinstance(ending, BaseException):
                    raise ending
                return ending

        def sweep(attempt_id, hosts, ssh_options, patience_s=0):
            self.swept.append((attempt_id, tuple(hosts), tuple(ssh_options), patience_s))
            found = self.sweeps.pop(0) if self.sweeps else Sweep([], ())
            if isinstance(found, BaseException):
                raise found
            return found

        monkeypatch.setattr(start, "Supervisor", Attempt)
        monkeypatch.setattr(leftovers_module, "run_sweep", sweep)
        monkeypatch.setattr(restart.Recovery, "_look", lambda recovery: {})
        monkeypatch.setattr(restart.Recovery, "_wait", lambda recovery, s: self.waited.append(s))

    def run(self, *endings):
        """Return the exit code, or raise what ends the loop."""
        self.endings = list(endings)
        plan = plan_launch(self.prepared.request, FACTS)
        return start.start_run(plan, self.prepared, FACTS)

    def events(self, name):
        return [event for event in read_events(self.path) if event["event"] == name]

    def states(self):
        ends = (*self.events("attempt_finished"), *self.events("run_finished"))
        return [event["state"] for event in ends]


@pytest.fixture
def make(tmp_path, monkeypatch):
    return lambda **more: Loop(tmp_path, monkeypatch, **more)


# -- what is left of an attempt ------------------------------------------------------------------


def test_a_run_that_is_done_has_left_nothing(make):
    loop = make()
    assert loop.run(DONE) == 0
    assert loop.swept == []
    assert loop.states() == ["done", "done"]


@pytest.mark.parametrize("max_restarts", [0, 1])
def test_a_stop_while_leftovers_are_ended_does_not_leave_them(make, max_restarts):
    loop = make(max_restarts=max_restarts)
    loop.sweeps = [StopAsked(signal.SIGTERM)]
    assert loop.run(FAILED) == (143 if max_restarts else 7)
    options = ("-F", str(loop.path / "ssh_config"))
    assert loop.swept == [("r.1", ("n1", "n2"), options, 0)] * 2
    assert loop.states() == ["failed", "stopped" if max_restarts else "failed"]


@pytest.mark.parametrize(
    ("number", "code", "state"),
    [(signal.SIGTERM, 75, "resumable"), (signal.SIGINT, 130, "stopped")],
)
def test_a_start_that_a_scheduler_stops_can_go_on_where_something_is_saved(
    make, number, code, state
):
    loop = make(max_restarts=1, is_trainer=True)
    stopped = Outcome("stopped", 128 + number, 0.1, stop_signal=number, stopped_early=True)
    assert loop.run(replace(FAILED, saved_step=4), stopped) == code
    assert loop.states()[-1] == state


@pytest.mark.parametrize(
    ("problem", "raised", "state"),
    [
        (LaunchError("channel: no file descriptor left"), LaunchError, "failed"),
        (OSError(errno.EIO, "Input/output error"), LaunchError, "failed"),
        (PlanError("mpirun: cannot be started"), PlanError, "failed"),
        (KeyboardInterrupt(), KeyboardInterrupt, "stopped"),
    ],
)
def test_whatever_breaks_the_launcher_has_an_end_and_is_swept(make, problem, raised, state):
    loop = make(max_restarts=3)
    with pytest.raises(raised):
        loop.run(problem)
    assert loop.states() == [state, state]
    assert [attempt_id for attempt_id, *_ in loop.swept] == ["r.1"]
    (end,) = loop.events("run_finished")
    assert end["retryable"] == (state == "stopped")


def test_an_attempt_that_follows_is_swept_as_well(make):
    loop = make(max_restarts=3)
    assert loop.run(FAILED, FAILED, DONE) == 0
    assert [attempt_id for attempt_id, *_ in loop.swept] == ["r.1", "r.2"]
    assert loop.states() == ["failed", "failed", "done", "done"]
    assert [event["restart"] for event in loop.events("restart")] == [1, 2]


# -- hosts that cannot be swept ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_trainer", "missed", "waits"),
    [(True, "n1", True), (True, "n2", False), (False, "n2", True)],
)
def test_who_may_still_write_checkpoints_is_waited_for(make, capsys, is_trainer, missed, waits):
    """Rank 0 names the trainer's; of a program of the user's nobody knows."""
    loop = make(max_restarts=1, is_trainer=is_trainer)
    loop.sweeps = [Sweep([f"{missed}: could not be swept: no answer"], (missed,))]
    assert loop.run(FAILED, DONE) == 0
    said = capsys.readouterr().err
    assert (f"s for {missed}: a rank there may write checkpoints" in said) == waits
    longest_s = max(loop.waited)
    assert 60 < longest_s <= 70 if waits else longest_s <= 3  # 60 s, 5 s and a heartbeat of 5 s


def left_behind(loop, *events):
    run = RunDirectory.create(loop.path)
    run.event("attempt", attempt=1, attempt_id="old.1", hosts=["n1", "n9"])
    for name, fields in events:
        run.record(0, {"event": name, "time_s": time.time(), **fields})
    run.close()


def test_a_dead_launchers_hosts_are_swept_by_their_own_ssh_configuration(make):
    """n9 is no host of the new plan: only the old one knew its user and port."""
    loop = make(resume=True)
    left_behind(loop)
    own = loop.path / "ssh_config"
    own.write_text("Host n9\n  Port 2222\n")
    seen = []
    sweep = leftovers_module.run_sweep
    leftovers_module.run_sweep = lambda *a, **k: (seen.append(own.read_text()), sweep(*a, **k))[1]
    assert loop.run(DONE) == 0
    assert loop.swept == [("old.1", ("n1", "n9"), ("-F", str(own)), 7)]
    assert "Port 2222" in seen[0]
    assert "Port 2222" not in own.read_text()
    assert loop.waited == []


def test_a_dead_launchers_rank_0_that_cannot_be_reached_is_waited_for(make):
    loop = make(resume=True, is_trainer=True)
    left_behind(loop)
    loop.sweeps = [Sweep([], ("n1",))]
    assert loop.run(DONE) == 0
    assert 60 < loop.waited[0] <= 70


def test_an_attempt_that_has_just_failed_is_looked_at_again(make):
    loop = make(resume=True, is_trainer=True)
    left_behind(loop, ("attempt_finished", {"state": "failed"}))
    loop.sweeps = [Sweep([], ("n1",))]
    assert loop.run(DONE) == 0
    assert loop.swept[0][0] == "old.1"
    assert 60 < loop.waited[0] <= 70


def test_one_that_failed_long_ago_or_ended_well_is_not(make):
    loop = make(resume=True)
    left_behind(loop, ("attempt_finished", {"state": "failed", "time_s": time.time() - 71}))
    assert loop.run(DONE) == 0
    assert loop.swept == []


def test_a_stop_before_the_first_attempt_leaves_the_earlier_one_without_an_end(make):
    loop = make(resume=True)
    left_behind(loop)
    loop.sweeps = [StopAsked(signal.SIGTERM)]
    assert loop.run() == 143
    assert [attempt_id for attempt_id, *_ in loop.swept] == ["old.1", "old.1"]
    assert loop.events("run_finished") == []
    run = RunDirectory.create(loop.path, resume=True)
    assert find_earlier_leftovers(FACTS, loop.prepared, run, lambda text: None) is not None
    run.close()


def test_the_launchers_own_host_is_always_swept_and_never_waited_for(make):
    left = leftovers_of("r.1", ["head", "n1"], FACTS, make(is_trainer=True).prepared, ())
    assert left.remote_hosts == ("n1",)
    assert left.writers == frozenset()


# -- the next attempt ----------------------------------------------------------------------------


def test_a_restart_that_never_is_does_not_count(make, monkeypatch):
    loop = make(max_restarts=3)

    def refuse(request, facts):
        raise PlanError("--subnet: none holds them all")

    monkeypatch.setattr(restart, "plan_launch", refuse)
    assert loop.run(FAILED) == 7
    assert loop.events("restart") == []
    (end,) = loop.events("run_finished")
    assert (end["restarts"], end["state"]) == (0, "failed")


def test_a_plan_that_finds_no_room_ends_the_run_in_order(make, monkeypatch, capsys):
    loop = make(max_restarts=3)

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(restart, "write_plan_files", fail)
    assert loop.run(FAILED) == 7
    assert loop.states() == ["failed", "failed"]
    assert "cannot be prepared: [Errno 28] No space left on device" in capsys.readouterr().err


def test_the_launchers_own_host_is_looked_at_too(make, monkeypatch):
    asked = {}

    def find_unfit(ranks, prepared, ssh_options, local, **known):
        asked.update(ranks=set(ranks), local=local)
        return {}

    look = restart.Recovery._look
    loop = make()
    monkeypatch.setattr(restart.Recovery, "_look", look)
    monkeypatch.setattr(restart, "find_healthy_hosts", lambda hosts, *_: dict.fromkeys(hosts, ""))
    monkeypatch.setattr("hpctrain.preflight.between_attempts.find_unfit_hosts", find_unfit)
    hosts = parse_host_list("head:1,n1:1").hosts
    request = LaunchRequest(("true",), hosts=hosts, run_path="r", environ={"PATH": "/usr/bin"})
    prepared = Prepared(request, Config(), loop.path, False, False, ())
    run = RunDirectory.create(loop.path)
    recovery = restart.Recovery(plan_launch(request, FACTS), prepared, FACTS, run, print)
    assert recovery._look() == {}
    assert asked == {"ranks": {"head", "n1"}, "local": frozenset({"head"})}
    run.close()


def test_fewer_ranks_are_planned_before_they_are_announced(make, monkeypatch):
    loop = make(max_restarts=1)
    hosts = loop.prepared.request.hosts
    crew = Crew(hosts=hosts[:1], others=hosts[1:], np=1, left={"n2": "gone"}, came=())
    monkeypatch.setattr(restart.Recovery, "_find_crew", lambda *_: crew)
    assert loop.run(FAILED, DONE) == 0
    (event,) = loop.events("restart")
    assert (event["np"], event["left"]) == (1, {"n2": "gone"})
    assert [event["hosts"] for event in loop.events("attempt")] == [["n1", "n2"], ["n1"]]
