"""What the supervisor concludes from what ranks say; nothing is started here."""

import contextlib
import json
import selectors
import signal
import time

import pytest

from hpctrain.executor import Command
from hpctrain.launch.blame import Blame
from hpctrain.launch.outcome import RankState
from hpctrain.launch.plan import LaunchPlan
from hpctrain.launch.signals import SignalInbox
from hpctrain.launch.supervisor import Supervisor
from hpctrain.launch.watch import SILENCE_S
from hpctrain.rundir import RunDirectory


class SilentConsole:
    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)

    def rank_output(self, rank, host, stream, data): ...
    def event(self, rank, record): ...
    def launcher_output(self, line): ...


@pytest.fixture
def make(tmp_path):
    """Return a function that makes the supervisor of a run whose ranks have all reported."""
    with contextlib.ExitStack() as stack:

        def make(np=4, **more):
            plan = LaunchPlan(
                command=Command(("mpirun",), {}), np=np, placement=(), program=("true",),
                files={}, reasons=(), warnings=(), mpi="", python="python",
                channel_address="127.0.0.1", ssh_options=(), remote_hosts=(),
                start_timeout_s=60.0, grace_s=1.0, **more,
            )  # fmt: skip
            run = RunDirectory.create(tmp_path / "r")
            stack.callback(run.close)
            # `rank_hosts` of a plan comes from its placement.
            hosts = tuple(f"n{rank // 2}" for rank in range(np))
            made = _Supervisor(plan, run, SilentConsole(), hosts)
            stack.callback(made.server.close)
            for rank, host in enumerate(hosts):
                made._on_frame(rank, {"kind": "hello", "host": host})
            return made

        yield make


class _Supervisor(Supervisor):
    def __init__(self, plan, run, console, hosts):
        super().__init__(plan, run, console)
        self.ranks = [RankState(host) for host in hosts]
        self.blame = Blame(self.ranks)

    @property
    def failure(self):
        return self.blame.failure

    def look_for_orders(self):
        self._look_for_orders(self.orders_at_s)

    @property
    def alerts(self):
        lines = (self.run_directory.path / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == "alert"]


def exit_frame(code=0, number=None, asked=False, phase=None, step=5):
    pulse = None if phase is None else [9, step, phase, 0.0, 0.1, step]
    return {"kind": "exit", "code": code, "signal": number, "asked": asked, "pulse": pulse,
            "still_s": 0.0}  # fmt: skip


# -- who is the cause ----------------------------------------------------------------------------


def test_the_first_that_fails_is_the_cause(make):
    made = make()
    made._on_frame(2, exit_frame(7))
    made._on_frame(1, exit_frame(9))
    assert (made.failure.rank, made.failure.exit_code, made.failure.reason) == (2, 7, "exit code 7")
    assert made.ending.has_begun


def test_who_has_said_why_is_the_cause_also_where_others_leave_first(make):
    made = make()
    record = {"event": "train_failed", "error": "TrainingError", "retryable": False}
    made._on_frame(2, {"kind": "event", "record": record})
    made._on_frame(0, exit_frame(1))
    assert (made.failure.rank, made.failure.host, made.failure.reason) == (2, "n1", "exit code 1")
    assert made.blame.refusal


def test_a_rank_that_is_killed_is_the_cause_itself(make):
    made = make()
    made._on_frame(0, exit_frame(0))
    made._on_frame(1, exit_frame(137, signal.SIGKILL))
    assert (made.failure.rank, made.failure.reason) == (1, "signal 9 (SIGKILL)")


def test_whom_mpirun_ended_is_not_where_a_host_is_silent(make):
    made = make()
    made.ranks[2].heard_at_s -= 6.0
    made.ranks[3].heard_at_s -= 7.0  # mpirun may miss a host so soon after its last heartbeat
    made._on_frame(0, exit_frame(143, signal.SIGTERM, asked=True))
    assert made.failure.rank == 3
    assert made.failure.reason.startswith("not heard for 7 s")


def test_a_shim_that_mpirun_killed_is_not_where_a_host_is_silent(make):
    made = make()
    made.ranks[1].heard_at_s -= 7.0
    made._on_lost(0)
    assert made.failure.rank == 1
    made._on_lost(3)
    assert made.failure.rank == 1


def test_a_host_whose_connection_ran_out_is_the_cause_itself(make):
    made = make()
    made.ranks[1].heard_at_s -= 15.0
    made._on_lost(1)
    assert (made.failure.rank, made.failure.reason[:16]) == (1, "not heard for 15")


def test_a_shim_that_is_killed_is_the_cause_itself(make):
    made = make()
    made._on_lost(0)
    assert made.failure.rank == 0
    assert made.failure.reason.startswith("its connection closed without a word")


def test_whom_mpirun_ended_is_not_where_one_has_left_with_0(make):
    """A program of others, of which nobody knows what it is at."""
    made = make()
    made._on_frame(2, exit_frame(0))
    assert made.failure is None
    made._on_frame(0, exit_frame(143, signal.SIGTERM, asked=True))
    assert (made.failure.rank, made.failure.exit_code) == (2, 1)
    assert made.failure.reason == "left early, with exit code 0, while others were at work"


def test_where_mpirun_ends_ranks_and_nobody_knows_why_no_rank_is_blamed(make):
    made = make()
    made._on_frame(3, exit_frame(143, signal.SIGTERM, asked=True))
    assert (made.failure.rank, made.failure.kind) == (None, "ended")
    outcome = made._outcome(143)
    assert (outcome.state, outcome.exit_code, outcome.suspects) == ("failed", 137, ())
    assert outcome.retryable


def test_a_shim_that_ends_its_program_says_why_itself(make):
    made = make()
    frame = exit_frame(1, asked=True) | {"error": "it has loaded another MPI"}
    made._on_frame(1, frame)
    assert (made.failure.rank, made.failure.kind) == (1, "refused")
    assert made._outcome(1).exit_code == 1


def test_who_left_with_0_is_not_why_a_shim_is_gone(make):
    """Ranks of a program of others may be done one by one; nobody was ended by mpirun."""
    made = make()
    made._on_frame(2, exit_frame(0))
    made._on_lost(1)
    assert (made.failure.rank, made.failure.kind) == (1, "lost")


def test_who_left_with_0_is_where_mpirun_has_ended_others_meanwhile(make):
    made = make()
    made._on_frame(2, exit_frame(0))
    made.blame._somebody_was_asked = True
    made._on_lost(1)
    assert (made.failure.rank, made.failure.kind) == (2, "left early")


@pytest.mark.parametrize("how", ["lost", "silent"])
def test_a_lost_rank_ends_the_run_as_sigkill_would_whatever_mpirun_says(make, how):
    made = make()
    made.ranks[1].heard_at_s -= 7.0 if how == "silent" else 0.0
    made._on_lost(1)
    assert made.failure.kind == how
    assert made._outcome(1).exit_code == 137


def test_what_every_rank_says_of_the_hosts_is_laid_to_none_of_them(make):
    made = make()
    record = {"event": "train_failed", "error": "FaultyHostError", "retryable": True}
    made._on_frame(2, {"kind": "event", "record": record})
    made._on_frame(0, exit_frame(1))
    outcome = made._outcome(1)
    assert (outcome.failure.rank, outcome.suspects, outcome.retryable) == (0, (), True)


def test_a_rank_that_leaves_in_the_middle_of_a_step_fails_at_once(make):
    made = make()
    made._on_frame(2, exit_frame(0, phase="forward"))
    assert (made.failure.rank, made.failure.exit_code) == (2, 1)
    assert made.failure.reason.endswith("at work: after step 5, in forward")
    (alert,) = made.alerts
    assert (alert["kind"], alert["ranks"], alert["hosts"]) == ("left early", [2], ["n1"])
    assert made.ending.has_begun


def test_it_is_the_cause_also_where_its_victims_are_heard_first(make):
    made = make()
    made._on_frame(0, exit_frame(1))
    made._on_frame(2, exit_frame(0, phase="forward"))
    assert made.failure.rank == 2


@pytest.mark.parametrize(
    "frame",
    [
        exit_frame(0, phase="leaving"),
        exit_frame(0, phase="barrier"),
        exit_frame(0, phase=""),
        exit_frame(0),
        exit_frame(0, phase="forward", asked=True),
    ],
)
def test_other_ways_to_leave_with_0_are_no_failure(make, frame):
    made = make()
    made._on_frame(1, frame)
    assert made.failure is None
    assert not made.ending.has_begun


# -- hangs ---------------------------------------------------------------------------------------


def beat(phase="exchange", still_s=0.0, state="S"):
    return {"kind": "beat", "step": 5, "state": state, "pulse": [9, 5, phase, 0.0, 0.1, 5],
            "still_s": still_s}  # fmt: skip


def test_a_hang_waits_for_the_stacks_of_those_that_answer(make, monkeypatch):
    made = make()
    monkeypatch.setattr(type(made.server), "connected_ranks", frozenset(range(4)))
    for rank in range(4):
        made._on_frame(rank, beat("data" if rank == 1 else "exchange", still_s=200.0))
    made._look_for_trouble(time.monotonic())
    assert [alert["ranks"] for alert in made.alerts] == [[1]]
    assert made.console.warnings[0].startswith("rank 1 on n0: all ranks stand still for 200 s")
    for rank in (0, 2, 3):
        made._on_frame(rank, {"kind": "stacks", "text": f"stack of {rank}"})
        assert made.failure is None
    made._on_frame(1, {"kind": "stacks", "text": "stack of 1"})
    assert (made.failure.rank, made.failure.exit_code) == (1, 137)
    assert (made.run_directory.path / "stacks" / "rank-00001.txt").read_text() == "stack of 1\n"


def test_where_all_wait_for_each_other_no_rank_is_named(make):
    made = make()
    for rank in range(4):
        made._on_frame(rank, beat("exchange", still_s=200.0))
    made._look_for_trouble(time.monotonic())
    outcome = made._outcome(0)  # mpirun may end before all stacks are there
    assert (outcome.failure.rank, outcome.failure.kind, outcome.suspects) == (None, "hang", ())
    assert outcome.exit_code == 137
    assert made.alerts[0]["ranks"] == []


def test_what_follows_a_hang_does_not_replace_its_cause(make):
    made = make()
    for rank in range(4):
        made._on_frame(rank, beat("data" if rank == 1 else "exchange", still_s=200.0))
    made._look_for_trouble(time.monotonic())
    made._on_frame(0, exit_frame(1))  # Horovod has lost its patience
    assert made.failure.rank == 1
    made._look_for_trouble(time.monotonic())
    assert len(made.alerts) == 1


def test_a_silent_host_is_given_up_at_once(make):
    made = make()
    made.ranks[2].heard_at_s -= SILENCE_S + 1
    made._look_for_trouble(time.monotonic())
    assert made.failure.rank == 2
    assert made.alerts[0]["kind"] == "silent"


def test_who_did_not_listen_excuses_the_silence(make):
    """The launcher was stopped, or the whole job suspended: hosts wake up one after the other."""
    made = make()
    for rank in made.ranks:
        rank.heard_at_s -= 3600.0
    now_s = time.monotonic()
    made._excuse_silence(now_s)
    made._look_for_trouble(now_s + SILENCE_S - 1)
    assert made.failure is None
    made._look_for_trouble(now_s + SILENCE_S + 1)
    assert made.failure.rank == 0


def test_nobody_is_judged_while_ranks_save_or_end(make):
    made = make(saves_on_signal=True)
    made.ranks[2].heard_at_s -= SILENCE_S + 1
    made._on_stop_signal(signal.SIGUSR1)
    made._look_for_trouble(time.monotonic())
    assert made.failure is None


# -- stragglers ----------------------------------------------------------------------------------


def test_a_straggler_is_told_and_the_run_goes_on(make):
    made = make()
    for step in range(10, 200, 10):
        for rank in range(4):
            record = {"event": "rank_step", "step": step, "data_s": 0.0, "forward_s": 0.1,
                      "backward_s": 0.9 if rank == 3 else 0.3, "optimizer_s": 0.0,
                      "exposed_comm_s": 0.1}  # fmt: skip
            made._on_frame(rank, {"kind": "event", "record": record})
    (alert,) = made.alerts
    assert (alert["kind"], alert["ranks"], alert["hosts"]) == ("straggler", [3], ["n1"])
    assert (alert["factor"], alert["cause"]) == (2.5, "compute")
    (warning,) = made.console.warnings
    assert warning == alert["reason"]
    assert made.failure is None


@pytest.mark.parametrize(("reported", "early"), [(3, True), (4, False)])
def test_a_rank_that_reports_after_the_stop_does_not_make_it_a_late_one(make, reported, early):
    made = make()
    for rank in made.ranks[reported:]:
        rank.reported = False
    made._on_stop_signal(signal.SIGTERM)
    for number in range(4):
        made._on_frame(number, {"kind": "hello", "host": "n0"})
        made._on_frame(number, exit_frame(143, signal.SIGTERM, asked=True))
    outcome = made._outcome(143)
    assert (outcome.state, outcome.unreported_ranks) == ("stopped", ())
    assert outcome.stopped_early is early


# -- orders --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "number"), [("STOP", 15), ("SAVE", 10)])
def test_a_file_is_an_order_and_is_taken_away(make, name, number):
    made = make(saves_on_signal=True)
    (made.run_directory.path / name).touch()
    made.look_for_orders()
    assert made.ending.save_signal == number  # both let the ranks save first
    assert not (made.run_directory.path / name).exists()
    made.look_for_orders()
    assert made.ending.stop_signal is None


def test_orders_are_looked_for_once_a_second_and_not_with_every_frame(make, monkeypatch):
    made = make()
    asked = []
    monkeypatch.setattr(type(made.run_directory), "take_order", lambda _, name: asked.append(name))
    for tenths in range(20):
        made._look_for_orders(made.started_at_s + tenths / 10)
    assert len(asked) == 2 * 2


@pytest.mark.parametrize("name", ["STOP", "SAVE"])
def test_ranks_that_cannot_save_are_stopped_by_either(make, name):
    made = make()
    (made.run_directory.path / name).touch()
    made.look_for_orders()
    assert made.ending.stop_signal == signal.SIGTERM


def test_other_files_are_no_orders(make):
    made = make()
    for name in ("stop", "STOP.txt", "SAVED"):
        (made.run_directory.path / name).touch()
    made.look_for_orders()
    assert (made.ending.stop_signal, made.ending.save_signal) == (None, None)


class Mpirun:
    """What the end of an attempt does to mpirun."""

    def __init__(self):
        self.signals = []

    def poll(self): ...

    def send_signal(self, number):
        self.signals.append(number)


@pytest.mark.parametrize(("connected", "expected"), [(4, []), (3, [signal.SIGUSR1])])
def test_ranks_that_only_mpirun_reaches_are_asked_to_save_through_it(
    make, monkeypatch, connected, expected
):
    made = make(saves_on_signal=True)
    made.ending.mpirun = Mpirun()
    monkeypatch.setattr(type(made.server), "connected_ranks", frozenset(range(connected)))
    made._on_stop_signal(signal.SIGTERM)
    assert made.ending.mpirun.signals == expected
    assert not made.ending.mpirun_was_signalled


def test_ranks_that_were_asked_to_save_past_the_launcher_are_resumable(make):
    made = make(np=2)
    made._on_frame(0, {"kind": "event", "record": {"event": "train_stopped", "step": 7}})
    for rank in range(2):
        made._on_frame(rank, exit_frame(0, phase="leaving"))
    outcome = made._outcome(0)
    assert (outcome.state, outcome.exit_code) == ("resumable", 75)
    assert outcome.stop_signal == signal.SIGUSR1


# -- signals -------------------------------------------------------------------------------------


@pytest.fixture
def inbox():
    heard = []
    selector = selectors.DefaultSelector()
    made = SignalInbox(selector, heard.append)

    def raise_and_serve(*numbers):
        for number in numbers:
            signal.raise_signal(number)
        while ready := selector.select(0):
            for key, _ in ready:
                key.data()
        return heard

    yield made, raise_and_serve
    selector.close()


def test_signals_are_handed_over_as_often_as_they_come(inbox):
    made, serve = inbox
    made.watch()
    try:
        assert serve(signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGTERM) == [15, 10, 15]
    finally:
        made.unwatch()


def test_what_was_ignored_stays_ignored_and_all_is_given_back(inbox):
    made, serve = inbox
    old = {n: signal.getsignal(n) for n in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        made.watch()
        assert serve(signal.SIGHUP) == []
        made.unwatch()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == old[signal.SIGTERM]
        assert signal.getsignal(signal.SIGUSR1) == old[signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGHUP, old[signal.SIGHUP])


def test_the_third_stop_signal_breaks_off_whatever_blocks(inbox):
    made, serve = inbox
    made.watch()
    try:
        serve(signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        made.unwatch()
