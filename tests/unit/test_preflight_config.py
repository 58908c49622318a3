"""What preflight says of a configuration: every error at once, and what has no effect."""

import pytest

from hpctrain.config import inspect_config, parse_config
from hpctrain.errors import ConfigError
from hpctrain.launch.prepare import Asked
from hpctrain.preflight.checks.config import CONFIG
from hpctrain.preflight.fleet import Fleet
from hpctrain.preflight.ignored import find_ignored
from hpctrain.preflight.judge_config import ConfigFacts, find_config_errors, gather_config_facts
from hpctrain.preflight.verdict import FAIL, PASS, SKIP, WARN


def ignored(text, *, np=2, is_trainer=True, is_local=False):
    config, errors, given = inspect_config(text)
    assert errors == ()
    lines = find_ignored(config, given, np=np, is_trainer=is_trainer, is_local=is_local)
    return [line.partition(" is ignored: ")[0] for line in lines]


@pytest.mark.parametrize(
    ("text", "more", "expected"),
    [
        ("[comm]\nexchange = 'native'\nbucket_mb = 8.0", {}, ["comm.bucket_mb = 8.0"]),
        ("[comm]\nbackend = 'ddp'\nbucket_mb = 8.0", {}, []),
        ("[comm]\nbucket_mb = 8.0", {}, []),
        ("[comm]\nbackend = 'none'\nexchange = 'buckets'", {}, ["comm.exchange = 'buckets'"]),
        ("[launch]\nsubnet = '10.0.0.0/24'", {"is_local": True}, ["launch.subnet = '10.0.0.0/24'"]),
        ("[launch]\nsubnet = '10.0.0.0/24'", {}, []),
        ("[launch]\nforward = ['MY_*']", {"is_local": True}, ["launch.forward = ['MY_*']"]),
        ("[optim]\nwarmup_steps = 5\nwarmup_tokens = 9", {}, ["optim.warmup_steps = 5"]),
        ("[optim]\nwarmup_tokens = 9", {}, []),
        ("[train]\nsteps = 300\ntokens = 9", {}, ["train.steps = 300"]),
        ("[train]\nprecision = 'tf32'\ndevice = 'cpu'", {}, ["train.precision = 'tf32'"]),
        ("[optim]\nsharded = true", {"np": 1}, ["optim.sharded = true"]),
        ("[optim]\nsharded = true", {}, []),
        ("[checkpoint]\nsave = 'off'\nkeep_last = 2", {}, ["checkpoint.keep_last = 2"]),
        ("[model]\nfactory = 'm:f'\nd_model = 64\nseq_len = 8", {}, ["model.d_model = 64"]),
    ],
)
def test_settings_that_will_be_ignored(text, more, expected):
    assert ignored(text, **more) == expected


def test_a_command_reads_no_setting_of_the_trainer():
    text = "[train]\nsteps = 5\n[launch]\ngrace_s = 2.0"
    (line,) = ignored(text, is_trainer=False)
    assert line.startswith("train.steps: hpctrain's own trainer alone")


@pytest.mark.parametrize(
    ("text", "np", "found"),
    [
        ("[model]\nd_model = 64\nnum_heads = 5", 1, "model.num_heads: does not divide"),
        ("[train]\nglobal_batch_size = 3", 4, "fewer sequences than ranks, got 3 for 4 ranks"),
        ("[comm]\nbackend = 'none'", 2, "comm.backend: 'none' is for one rank, got 2"),
        ("[comm]\nexchange = 'native'\n[optim]\nsharded = true", 2, "optim.sharded: needs our own"),
        ("[train]\nprecision = 'apex-O2'\nactivation_checkpointing = true", 1, "apex-O2"),
    ],
)
def test_what_only_ranks_found_is_found_before(text, np, found):
    (error,) = find_config_errors(parse_config(text), np)
    assert found in error


def test_a_good_configuration_has_no_error_and_np_may_be_unknown():
    config = parse_config("[train]\nglobal_batch_size = 1\n[comm]\nbackend = 'none'")
    assert find_config_errors(config, None) == []
    assert find_config_errors(parse_config(""), 8) == []


def test_every_error_at_once(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text(
        "[train]\nstepz = 5\nlog_every_steps = 'often'\n[model]\nd_model = 64\nnum_heads = 5\n"
        "[optim]\nwarmup_steps = 5\nwarmup_tokens = 9\n"
    )
    facts = gather_config_facts(Asked(config_name=str(file), np=2, overrides=("comm.x=1",)), 2)
    assert len(facts.errors) == 4
    text = "\n".join(facts.errors)
    assert "unknown key" in text
    assert "Did you mean 'steps'?" in text
    assert "log_every_steps: wrong value" in text
    assert "--set comm.x=1: unknown key" in text
    assert "model.num_heads: does not divide" in text
    assert [line.split()[0] for line in facts.ignored] == ["optim.warmup_steps"]


def test_what_is_judged_beside_an_error_is_not_judged_by_defaults():
    facts = gather_config_facts(Asked(overrides=("model.d_model='wide'", "model.num_heads=48")), 2)
    (error,) = facts.errors
    assert "model.d_model" in error


@pytest.mark.parametrize("name", ["no-such-recipe", "broken.toml"])
def test_a_file_that_cannot_be_read_is_the_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("[train\n")
    (error,) = gather_config_facts(Asked(config_name=name), 1).errors
    assert name in error


def test_options_that_take_a_settings_place_are_named(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("[launch]\nnp = 4\nhosts = 'hostfile'\n")
    facts = gather_config_facts(Asked(config_name=str(file), np=2, host_list="a,b"), 2)
    assert [line.partition(" is")[0] for line in facts.ignored] == [
        "launch.np = 4", "launch.hosts = 'hostfile'",
    ]  # fmt: skip


def judge(facts):
    return [(v.status, v.found) for v in CONFIG.judge(Fleet(tasks={}, facts={"config": facts}))]


def test_judging_the_configuration():
    assert [status for status, _ in judge(None)] == [SKIP]
    assert judge(ConfigFacts(given=1)) == [
        (PASS, "1 setting given, each understood and with an effect")
    ]
    facts = ConfigFacts(errors=("a", "b"), ignored=("c",), given=3)
    assert judge(facts) == [(FAIL, "a"), (FAIL, "b"), (WARN, "c")]


def test_reading_leniently_is_reading_strictly_where_all_is_well():
    text = "[train]\nsteps = 7\n[launch.env]\nA = '1'"
    inspected = inspect_config(text, overrides=["optim.lr=0.5"])
    assert inspected.config == parse_config(text, overrides=["optim.lr=0.5"])
    assert inspected.given == ("train.steps", "launch.env", "optim.lr")
    with pytest.raises(ConfigError, match="not valid TOML"):
        inspect_config("[train")
