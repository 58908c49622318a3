"""The benchmarks start, and compare like with like."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import tiers

tiers.require("torch")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if path.name != "measuring.py")


@pytest.fixture
def module(monkeypatch):
    """Return a function that imports a benchmark's module."""
    for folder in (BENCHMARKS, BENCHMARKS / "peers"):
        monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for name in ("allreduce", "common", "measuring", "peers"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_says_what_it_measures(script):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"benchmarks/{script}" in done.stdout


def test_the_peers_train_what_hpctrain_trains(module):
    common, peers = module("common"), module("peers")
    assert {f"model.{key}": value for key, value in common.SHAPE.items()}.items() <= (
        peers.SETTINGS.items()
    )
    assert peers.SETTINGS["train.batch_size_per_rank"] == common.BATCH_SIZE
    assert peers.SETTINGS["optim.lr"] == common.LEARNING_RATE
    assert peers.SETTINGS["optim.clip_norm"] == common.CLIP_NORM

    from hpctrain.config import parse_config
    from hpctrain.train.presets import count_parameters, resolve_model

    config = parse_config("", overrides=[f"{key}={value}" for key, value in peers.SETTINGS.items()])
    assert count_parameters(resolve_model(config.model)) == pytest.approx(10.8e6, rel=0.02)


def test_the_exchange_is_of_118_mb(module):
    from hpctrain.train.model import build_model
    from hpctrain.train.presets import ModelSize

    allreduce = module("allreduce")
    model = build_model(ModelSize(**allreduce.SHAPE, position="learned"), seed=1)
    assert sum(p.nbytes for p in model.parameters()) == pytest.approx(118e6, rel=0.005)
    assert max(allreduce.CHUNKS) > 118e6 > min(allreduce.CHUNKS)


def test_the_bar_stands_beside_what_it_does_not_hold_for(module):
    """Unpinned threads and the long cycle of long steps are slower than the goals."""
    allreduce = module("allreduce")
    titles = [*allreduce.KINDS.values(), allreduce.PLAIN_C]
    rows = allreduce.ratio_rows({title: [1.0, 2.0, 4.0] for title in titles})
    for ours in (allreduce.OURS, allreduce.UNPINNED, allreduce.LONG_CYCLE):
        for other in allreduce.GOALS:
            (line,) = [each for each in rows if each.startswith(f"| {ours} / {other}")]
            assert "| 1 | 1 to 1 |" in line
            assert ("goal" in line) == (ours == allreduce.OURS)


def test_medians_have_quartiles_and_ratios_go_pair_by_pair(module):
    measuring = module("measuring")
    values = {"ours": [1.0, 2.0, 4.0], "theirs": [2.0, 2.0, 12.0]}
    assert measuring.ratios(values, "theirs", "ours") == [2.0, 1.0, 3.0]
    assert measuring.quartiles([1.0, 2.0, 3.0]) == (1.0, 2.0, 3.0)
    assert "| ours | 2 s | 1 to 4 |" in measuring.table(values, " s")
