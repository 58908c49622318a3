"""Samples from a source of the user's own, and what is said of one that cannot be used."""

import sys
import types
from pathlib import Path

import pytest
import tiers

tiers.require("torch")

import numpy as np  # noqa: E402

from hpctrain.config import parse_config  # noqa: E402
from hpctrain.errors import ConfigError  # noqa: E402
from hpctrain.train.own_data import OwnData  # noqa: E402
from hpctrain.train.presets import resolve_model  # noqa: E402

SIZE = resolve_model(parse_config("[model]\nseq_len = 8").model)


class Counting:
    """Sample i counts up from i."""

    vocab_size = 256

    def __init__(self, length=40, width=9, dtype=np.uint8, first=0):
        self.length, self.width, self.dtype, self.first = length, width, dtype, first

    def __len__(self):
        return self.length

    def read(self, samples):
        rows = self.first + samples[:, None] + np.arange(self.width)
        return rows.astype(self.dtype)


@pytest.fixture
def own(monkeypatch):
    """Return a function that opens what a module's `build` returns for each split."""
    module = types.ModuleType("module_of_ones_own")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def start(train, validation=None, **more):
        module.build = lambda split, seq_len: train if split == "train" else validation
        return OwnData("module_of_ones_own:build", seq_len=8)

    return start


def test_samples_come_by_number_and_each_once_an_epoch(own):
    data = own(Counting())
    samples = data.samples("train", 8)
    order = samples.samples_at(np.arange(80), seed=1)
    assert sorted(order[:40]) == sorted(order[40:]) == list(range(40))
    rows = samples.read(order[:2])
    assert rows.dtype == np.int64
    assert rows.tolist() == [[int(first) + i for i in range(9)] for first in order[:2]]
    assert data.training_tokens == 40 * 8
    assert data.problems(SIZE, None) == []
    assert len(data.samples("validation", 8)) == 0


def test_the_digest_tells_data_apart(own):
    one = own(Counting(), Counting())
    assert one.digest == own(Counting(), Counting()).digest
    others = [own(Counting(), None), own(Counting(41)), own(Counting(first=1), Counting())]
    assert len({data.digest for data in (one, *others)}) == 4


def test_a_source_may_say_what_spells_its_tokens(own):
    assert own(Counting()).tokenizer == "module_of_ones_own:build"
    named = Counting()
    named.tokenizer = "bytes"
    data = own(named)
    assert data.problems(SIZE, "bytes") == []
    (problem,) = data.problems(SIZE, "bpe")
    assert "has tokens of 'bytes'; expected data.tokenizer = 'bpe'" in problem


@pytest.mark.parametrize(
    ("train", "problem"),
    [
        (None, "returned NoneType without __len__, read, vocab_size"),
        (Counting(width=8), r"read 3 samples as an array \(3, 8\) of uint8; expected .*\(3, 9\)"),
        (Counting(dtype=np.float32), "of float32; expected whole numbers"),
        (types.SimpleNamespace(__len__=0, read=0, vocab_size=None), "no number for a vocab_size"),
    ],
)
def test_a_source_that_cannot_be_used_is_explained(own, train, problem):
    with pytest.raises(ConfigError, match=f"data.factory: .*{problem}"):
        own(train)


def test_what_does_not_fit_the_model_is_named_all_at_once(own):
    empty = Counting(0)
    empty.vocab_size = 50
    problems = own(empty, Counting()).problems(SIZE, None)
    assert ["no samples" in problems[0], "got vocab_size 50" in problems[1]] == [True, True]
    assert len(problems) == 2


def test_a_token_outside_the_vocabulary_is_named_wherever_it_stands(own):
    class OneIsWild(Counting):
        def read(self, samples):
            return super().read(samples) + 300 * (samples == 7)[:, None]

    samples = own(OneIsWild(dtype=np.int32)).samples("train", 8)
    assert samples.read(np.array([6, 8])).max() == 16
    with pytest.raises(ConfigError, match="got 6 to 315; expected 0 to 255"):
        samples.read(np.array([6, 7]))


def test_what_the_users_function_raises_is_told_with_its_line(own, monkeypatch):
    def build(split, seq_len):
        raise FileNotFoundError("no corpus.bin")

    own(Counting())
    monkeypatch.setattr(sys.modules["module_of_ones_own"], "build", build)
    here = rf"{__file__}:{build.__code__.co_firstlineno + 1}"
    with pytest.raises(ConfigError, match=rf"raised FileNotFoundError: no corpus.bin \({here}\)"):
        OwnData("module_of_ones_own:build", seq_len=8)
    monkeypatch.setattr(sys.modules["module_of_ones_own"], "build", lambda split, length: None)
    with pytest.raises(ConfigError, match=r"TypeError: .*; it is called with split, seq_len"):
        OwnData("module_of_ones_own:build", seq_len=8)


def test_one_source_of_data_at_a_time():
    with pytest.raises(ConfigError, match="path and factory are given together"):
        parse_config("[data]\npath = 'a'\nfactory = 'b:c'")


def test_generate_needs_to_know_what_spells_the_tokens():
    from hpctrain.errors import CheckpointError
    from hpctrain.train.generate import _open_tokenizer

    index = {"files": {}, "tokenizer": "a:b", "config": {"data": {"factory": "a:b"}}}
    with pytest.raises(CheckpointError, match=r"data\.factory = 'a:b', which does not say"):
        _open_tokenizer(Path("checkpoint"), index)
