"""The faults of benchmarks/faults.py, for tests: the same trainings, shorter, each fault once."""

import random
import sys
import uuid
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from faulting.cases import CASES
from faulting.nodes import nodes_up
from faulting.training import Place
from faulting.trial import Trial, run_trial, run_undisturbed

__all__ = ["CASES", "LENGTH", "Place", "disturb", "nodes_up", "run_undisturbed"]

LENGTH = {"steps": 40, "pace_s": 0.04}
GENEROUS_S = 60.0
"""Machines that tests run on are busy: what takes longer than this is broken, not slow."""


def disturb(name: str, place: Place, undisturbed: dict[int, float], nodes=None, **more) -> Trial:
    """Disturb a training once; fail where it does not end as it should."""
    seed = random.randrange(1 << 30)
    run = f"{name}-{uuid.uuid4().hex[:6]}"
    trial = run_trial(CASES[name], place, nodes, undisturbed, run, random.Random(seed), **more)
    problems = [each for each in trial.problems if not each.startswith("noticed after")]
    assert not problems, f"{problems} (seed {seed})\n{trial}"
    assert trial.noticed_s is None or trial.noticed_s < GENEROUS_S, trial
    assert not trial.left
    assert not trial.half_checkpoints
    return trial
