"""One fault: disturb a training, look at what is left, go on with it, compare the losses."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass

from faulting.cases import Case, disk_of_its_own, node_of
from faulting.nodes import Nodes
from faulting.training import Place, Training, find_half_checkpoints

LEFT_S = 5.0
"""Processes may take so long to be gone once the launcher has ended."""
SLACK_S = 15.0
"""A cut-off host ends its ranks after launch.cut_off_s; heartbeat and grace come on top."""


@dataclass
class Trial:
    """What one fault led to.

    Args:
        commit: of hpctrain that was measured.
        rank: whose fault it was; None where it was no rank's.
        step: of the training when it was disturbed.
        noticed_s: from the fault to the launcher's first sign of it; None where there is none.
        ended_s: from the fault to the launcher's end.
        exit_code: of ``hpctrain run``.
        blamed: the failure, as the run's events have it.
        left: processes of the run LEFT_S after the end; of a cut-off host after its time.
        gone_s: from the launcher's end until no process was left.
        half_checkpoints: damaged ones with a whole one's name, and leftovers at the very end.
        lost_steps: steps that were done again.
        loss_differs: largest relative difference of a step's loss from the undisturbed run's.
        problems: what did not end as it should.
    """

    commit: str = ""
    rank: int | None = None
    step: int = 0
    noticed_s: float | None = None
    ended_s: float | None = None
    exit_code: int | None = None
    blamed: str = ""
    left: int = 0
    gone_s: float = 0.0
    half_checkpoints: int = 0
    lost_steps: int = 0
    loss_differs: float | None = None
    final_loss: float | None = None
    note: str = ""
    problems: tuple[str, ...] = ()

    def as_record(self) -> dict[str, object]:
        return asdict(self)


def run_undisturbed(place: Place, name: str = "undisturbed", **more: object) -> dict[int, float]:
    """Return the loss of each step of a training that nothing disturbs."""
    training = place.start(name, **more)
    code = training.finish()
    if code:
        raise RuntimeError(f"undisturbed: exit code {code}\n{training.said()}")
    return training.losses()


def run_trial(
    case: Case, place: Place, nodes: Nodes | None, undisturbed: Mapping[int, float], name: str,
    dice: random.Random, *, again: Mapping[str, object] | None = None, tolerance: float = 0.0,
    commit: str = "",
) -> Trial:  # fmt: skip
    """Disturb a training once, at a moment that `dice` choose.

    Args:
        again: how it goes on, if not as before (``np=…``).
        tolerance: of the losses afterwards, relative; 0 for bitwise equal ones.
        commit: of hpctrain, for the record.
    """
    trial = Trial(commit=commit)
    settings = dict(case.settings)
    with disk_of_its_own(place.run_path(name)) if case.own_disk else nullcontext():
        training = place.start(name, **settings)
        try:
            _disturb(case, training, nodes, dice, trial)
            if case.exit_codes != (0,):
                _go_on(case, training, dice, trial, {**settings, **(again or {})})
            _compare(training, undisturbed, trial, tolerance)
        except Exception as problem:  # the next ones are worth trying all the same
            trial.problems = (*trial.problems, f"{type(problem).__name__}: {problem}")
        finally:
            training.end()
    return trial


def _disturb(
    case: Case, training: Training, nodes: Nodes | None, dice: random.Random, trial: Trial
) -> None:
    problems: list[str] = []
    # From the first step to where a checkpoint more would follow, at a random moment of a step.
    last_step = max(case.first_step, training.place.steps * 2 // 3)
    training.wait_for_step(dice.randint(case.first_step, last_step))
    if case.after is not None:
        training.wait_until(lambda: len(training.whole_checkpoints()) > 1, "two checkpoints")
    time.sleep(dice.uniform(0, training.place.pace_s))
    trial.step = training.last_step()
    injection = case.inject(training, nodes, dice)
    trial.note, trial.rank = injection.note, injection.rank
    old = training.processes()
    try:
        trial.exit_code = training.finish()
        ended_s = time.time()
        trial.ended_s = round(ended_s - injection.at_s, 3)
        first_s = training.first_sign_s(injection.at_s)
        is_no_failure = case.exit_codes in ((0,), (75,), (-9,)) and not case.notice_s
        if not is_no_failure and case.after is None and first_s is not None:
            trial.noticed_s = round(first_s - injection.at_s, 3)
        if case.exit_codes == (-9,):
            pass  # started again at once: its processes are looked for afterwards
        else:
            trial.left, trial.gone_s = _wait_until_gone(training, old, is_cut_off=case.on_nodes)
            problems += [f"{trial.left} processes left"] if trial.left else []
    finally:
        if case.repair is not None and nodes is not None and injection.rank is not None:
            case.repair(nodes, node_of(injection.rank))
        elif case.repair is not None and nodes is not None:
            for number in range(nodes.count):
                case.repair(nodes, node_of(number))
    if case.exit_codes and trial.exit_code not in case.exit_codes:
        problems.append(f"exit code {trial.exit_code}; expected {case.exit_codes}")
    if not case.exit_codes and trial.exit_code == 0:
        problems.append("exit code 0")
    failure = training.outcome().get("failure") or {}
    trial.blamed = f"rank {failure.get('rank')}: {failure.get('reason')}" if failure else ""
    if case.names_rank and failure.get("rank") != injection.rank:
        problems.append(f"rank {failure.get('rank')} is blamed; expected {injection.rank}")
    if case.notice_s and (trial.noticed_s is None or trial.noticed_s > case.notice_s):
        problems.append(f"noticed after {trial.noticed_s} s; goal {case.notice_s:g} s")
    trial.half_checkpoints = len(find_half_checkpoints(training.checkpoints))
    trial.problems = tuple(problems)


def _go_on(
    case: Case, training: Training, dice: random.Random, trial: Trial, more: dict[str, object]
) -> None:
    """Resume; compare what was lost."""
    problems = list(trial.problems)
    if trial.half_checkpoints:
        problems.append(f"{trial.half_checkpoints} half checkpoints")
    if case.after is not None:
        trial.note = case.after(training, dice)
    reached, old = training.last_step(), training.processes()
    again = training.place.start(training.name, resume=True, **more)
    try:
        again.wait_until(again.has_ranks, "its ranks")
        alive = again.processes()
        code = again.finish()
    finally:
        again.end()
    still = [pid for pid in old if pid in alive]
    if still:  # two attempts at once
        trial.left = len(still)
        problems.append(f"{len(still)} processes of the attempt before were left")
    if code:
        problems.append(f"resume: exit code {code}: {again.said()[-500:]}")
    events = [*again.events(), *again.rank_events()]
    if case.after is not None and not any(e.get("alert") == "checkpoint_damaged" for e in events):
        problems.append("the damage was not noticed")
    begun = [e["step"] for e in events if e["event"] == "resumed"]
    trial.lost_steps = reached - (begun[0] if begun else 0)
    trial.problems = tuple(problems)


def _compare(
    training: Training, undisturbed: Mapping[int, float], trial: Trial, tolerance: float
) -> None:
    problems = list(trial.problems)
    if trial.exit_code == 0:
        trial.lost_steps = _count_lost_steps(training)
    losses = training.losses()
    leftovers = list(training.checkpoints.glob(".step-*"))
    trial.half_checkpoints += len(leftovers) + len(find_half_checkpoints(training.checkpoints))
    if leftovers:
        problems.append(f"leftovers: {', '.join(path.name for path in leftovers)}")
    trial.final_loss = losses.get(training.place.steps)
    if sorted(losses) != sorted(undisturbed):
        problems.append(f"{len(losses)} steps; expected {len(undisturbed)}")
    else:
        trial.loss_differs = max(
            abs(losses[s] - loss) / abs(loss) for s, loss in undisturbed.items()
        )
        if trial.loss_differs > tolerance:
            problems.append(f"a loss differs by {trial.loss_differs:.3g}")
    trial.problems = tuple(problems)


def _count_lost_steps(training: Training) -> int:
    """Return how many steps one launcher's attempts did again."""
    reached = lost = 0
    for event in training.events():
        if event["event"] == "step":
            reached = max(reached, event["step"])
        elif event["event"] == "attempt":
            lost += reached
        elif event["event"] == "resumed":
            lost -= event["step"]
    return lost


def _wait_until_gone(
    training: Training, old: Mapping[int, str], *, is_cut_off: bool
) -> tuple[int, float]:
    """Return how many processes are left, and how long it took until none was (s)."""
    ended_s = time.monotonic()
    settings_s = 10.0 + SLACK_S if is_cut_off else LEFT_S
    while True:
        left = training.processes()
        waited_s = round(time.monotonic() - ended_s, 3)
        if not left or waited_s > settings_s:
            return len(left), waited_s
        time.sleep(0.1)
