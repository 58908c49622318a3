"""What breaks a training on this machine: each fault once, and the resume drill."""

import json

import pytest
from disturbing import LENGTH, Place, disturb, run_undisturbed

pytestmark = pytest.mark.needs("mpirun", "torch", "horovod")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("faults"), **LENGTH)
    made.prepare()
    return made


@pytest.fixture(scope="module")
def undisturbed(place):
    return run_undisturbed(place)


def test_the_trainings_learn_something(undisturbed):
    assert sorted(undisturbed) == list(range(1, LENGTH["steps"] + 1))
    assert undisturbed[LENGTH["steps"]] < 0.8 * undisturbed[1]


def test_a_killed_rank(place, undisturbed):
    trial = disturb("kill", place, undisturbed)
    assert trial.blamed.endswith("signal 9 (SIGKILL)")
    assert 0 <= trial.lost_steps <= 20


def test_a_stopped_rank_is_found_and_named(place, undisturbed):
    trial = disturb("stop", place, undisturbed)
    assert "its program is stopped (SIGSTOP)" in trial.blamed


def test_a_rank_that_sleeps_is_found_and_its_stacks_are_kept(place, undisturbed):
    trial = disturb("sleep", place, undisturbed)
    assert "it did not arrive, while 1 of 2 ranks wait" in trial.blamed
    culprit = int(trial.blamed.split()[1].rstrip(":"))
    (run,) = place.folder.glob("runs/sleep-*")
    stacks = [run / "stacks" / f"rank-{rank:05d}.txt" for rank in (0, 1)]
    assert "paced_model.py" in stacks[culprit].read_text()
    assert "paced_model.py" not in stacks[1 - culprit].read_text()
    alerts = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [alert["kind"] for alert in alerts if alert["event"] == "alert"] == ["hang"]


@pytest.mark.parametrize("how", ["truncated", "bit-flip"])
def test_a_damaged_checkpoint_leads_back_to_the_one_before(place, undisturbed, how):
    trial = disturb(how, place, undisturbed)
    assert "byte" in trial.note
    assert trial.step >= 22


def test_a_signal_to_save_while_a_checkpoint_is_written(place, undisturbed):
    trial = disturb("sigterm", place, undisturbed)
    assert (trial.exit_code, trial.lost_steps) == (75, 0)


def test_a_killed_launcher_that_is_started_again_at_once(place, undisturbed):
    assert disturb("launcher", place, undisturbed).lost_steps <= 20


def test_a_loss_that_is_no_number_on_one_rank(place, undisturbed):
    trial = disturb("nan", place, undisturbed)
    assert trial.blamed.endswith("exit code 1")


@pytest.mark.parametrize("how", ["leave", "vanish"])
def test_a_rank_that_ends_with_0_too_early_is_blamed_for_it(place, undisturbed, how):
    trial = disturb(how, place, undisturbed)
    assert "left early, with exit code 0, while others were at work" in trial.blamed


def test_resume_at_another_size_has_the_same_losses(place, undisturbed):
    """Bitwise at the same size, as in all tests above; another order of sums at another."""
    words = ("--oversubscribe",)
    trial = disturb("kill", place, undisturbed, again={"np": 3, "words": words}, tolerance=1e-4)
    assert trial.loss_differs is not None


def test_a_killed_rank_is_started_again_by_the_launcher_itself(place, undisturbed):
    trial = disturb("restart", place, undisturbed)
    assert trial.exit_code == 0
    assert 0 <= trial.lost_steps <= 20


def test_a_rank_that_is_slow_is_named_while_the_run_goes_on(place):
    place.order("slow", 1)
    try:
        training = place.start("slow", **{"train.steps": 110})
        assert training.finish() == 0, training.said()
    finally:
        (place.folder / "orders" / "slow-1").unlink()
    alerts = [event for event in training.events() if event["event"] == "alert"]
    stragglers = [alert for alert in alerts if alert["kind"] == "straggler"]
    assert [(a["ranks"], a["cause"]) for a in stragglers if a["ranks"] == [1]] == [([1], "compute")]
    assert "warning: rank 1 on " in training.said()
    assert "and they wait. Likely it computes slower" in training.said()
