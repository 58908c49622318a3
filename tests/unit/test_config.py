"""Configuration: strict, all errors at once, and written back as it was read."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.config import (
    Config,
    as_tables,
    config_from_tables,
    dump_toml,
    load_config,
    parse_config,
)
from hpctrain.config.reference import render_reference
from hpctrain.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_defaults_then_file_then_set():
    text = "[train]\nsteps = 7\nseed = 1"
    config = parse_config(text, overrides=["train.seed=2"])
    assert (config.train.steps, config.train.seed) == (7, 2)
    assert config.optim == Config().optim


def test_every_error_at_once_and_in_its_place():
    text = (
        "[train]\nstepz = 3\nsteps = -1\n[modell]\na = 1\n[launch.env]\nA = 3\n[comm]\nbackend = 1"
    )
    overrides = ["train.precision=fp8", "optim.lr=abc", "foo", "mod.a=1", "launch.grace_s=inf"]
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "x.toml", overrides)
    text = str(caught.value)
    for part in (
        "x.toml: train.stepz: unknown key",
        "Did you mean 'steps'?",
        "x.toml: train.steps: wrong value, got -1; expected int >= 1",
        "x.toml: modell: unknown key",
        "x.toml: launch.env: wrong value",
        "x.toml: comm.backend: unknown value, got 1; expected one of horovod, ddp, none",
        "--set train.precision=fp8: unknown value, got 'fp8'; expected one of",
        "--set optim.lr=abc: wrong value, got 'abc'",
        "--set foo: not an assignment",
        "--set mod.a=1: unknown key",
        "--set launch.grace_s=inf: wrong value",
    ):
        assert part in text
    assert len(caught.value.messages) == 10


@pytest.mark.parametrize("value", ["'3'", "true", "1.5", "[]", "{}"])
def test_types_are_strict(value):
    with pytest.raises(ConfigError, match=r"train\.steps"):
        parse_config(f"[train]\nsteps = {value}")


def test_a_whole_number_is_a_fraction_too():
    assert parse_config("[optim]\nlr = 1").optim.lr == 1.0


def test_the_batch_is_given_once():
    with pytest.raises(ConfigError, match="both given; expected one"):
        parse_config("[train]\nglobal_batch_size = 8\nbatch_size_per_rank = 4")


def test_horovod_sums_no_bf16():
    with pytest.raises(ConfigError, match=r"comm: compression = 'bf16' with backend = 'horovod'"):
        parse_config("[comm]\ncompression = 'bf16'")
    assert parse_config("[comm]\ncompression = 'bf16'\nbackend = 'ddp'").comm.backend == "ddp"


def test_broken_toml_and_missing_files(tmp_path):
    with pytest.raises(ConfigError, match=r"x\.toml: not valid TOML: Expected"):
        parse_config("[train", "x.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "latin.toml")


# Any text that TOML can hold: no lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    env=st.dictionaries(texts, texts, max_size=3),
    forward=st.lists(texts, max_size=3),
    lr=st.floats(1e-300, 1e300),
    path=texts,
)
def test_what_is_written_is_read_back(env, forward, lr, path):
    tables = {
        "launch": {"env": env, "forward": forward},
        "optim": {"lr": lr},
        "data": {"path": path},
    }
    config = config_from_tables(tables)
    assert parse_config(dump_toml(config)) == config
    assert config_from_tables(as_tables(config)) == config


def test_the_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.steps = 3


def test_the_page_of_settings_is_that_of_the_schema():
    assert DOCS.read_text() == render_reference(), "run: python -m hpctrain.config.reference"
