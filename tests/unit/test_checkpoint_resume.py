"""Resuming in one process and on one rank: which checkpoint, from which step, with what said."""

import json
import os
import random
import signal
from pathlib import Path

import pytest
import tiers

tiers.require("torch")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from hpctrain.cli import cli  # noqa: E402
from hpctrain.config import parse_config  # noqa: E402
from hpctrain.errors import CheckpointError  # noqa: E402
from hpctrain.train import generate  # noqa: E402
from hpctrain.train.checkpoint_folder import list_steps, step_name  # noqa: E402
from hpctrain.train.communicator import Communicator  # noqa: E402
from hpctrain.train.loop import run_training  # noqa: E402
from hpctrain.train.precision import StepGuard  # noqa: E402
from hpctrain.train.state import encode_rng, restore_rng, rng_state, seed_rng  # noqa: E402

SETTINGS = {
    "model.d_model": 16,
    "model.num_layers": 1,
    "model.num_heads": 2,
    "model.seq_len": 16,
    "train.steps": 8,
    "train.global_batch_size": 2,
    "train.eval_sequences": 2,
    "train.device": "cpu",
    "optim.warmup_steps": 2,
    "comm.backend": "none",
    "comm.bucket_mb": 0.01,
    "checkpoint.every_steps": 2,
    "checkpoint.keep_last": 9,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from hpctrain.train.prepare import PrepareRequest, prepare_data

    out = tmp_path_factory.mktemp("data") / "text"
    source = str(Path(os.__file__).parent / "json")
    prepare_data(PrepareRequest(sources=(source,), out=out, validation_fraction=0.1))
    return out


@pytest.fixture
def train(data, tmp_path, monkeypatch, capfd):
    """Return a function that trains as a run of the given name; it returns losses by step."""
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGUSR1)
    torch.set_num_threads(1)

    def start(name="r", **settings):
        merged = {**SETTINGS, "data.path": data, **settings}
        config = parse_config("", overrides=[f"{key}={value}" for key, value in merged.items()])
        reader, writer = os.pipe2(os.O_NONBLOCK)
        monkeypatch.setenv("HPCTRAIN_EVENTS_FD", str(writer))
        monkeypatch.setenv("HPCTRAIN_RUN_PATH", str(tmp_path / name))
        capfd.readouterr()
        try:
            run_training(config, Communicator())
        finally:
            os.close(writer)
            start.said = "".join(capfd.readouterr())
            with open(reader) as pipe:
                start.events = [json.loads(line) for line in pipe]
        return {e["step"]: e["loss"] for e in start.events if e["event"] == "step"}

    start.root = tmp_path / "r" / "checkpoints"
    start.path = lambda step: start.root / step_name(step)
    yield start
    torch.set_num_threads(threads)
    signal.signal(signal.SIGUSR1, handler)


def weights(checkpoint, out):
    done = CliRunner().invoke(cli, ["export", str(checkpoint), "--out", str(out), "--force"])
    assert done.exit_code == 0, done.output
    return load_file(out)


def test_it_goes_on_bitwise_where_it_was(train, tmp_path):
    undisturbed = train("other")
    assert list(undisturbed) == list(range(1, 9))
    saved = [e for e in train.events if e["event"] == "checkpoint"]
    assert [e["step"] for e in saved] == [2, 4, 6, 8]
    for event in saved:
        folder = tmp_path / "other" / event["path"]
        assert event["bytes"] == sum(p.stat().st_size for p in folder.glob("*.safetensors"))
        assert 0 < event["stall_s"] <= event["write_s"]
    source = tmp_path / "other" / "checkpoints" / step_name(4)
    resumed = train(**{"checkpoint.resume": source})
    assert resumed == {step: undisturbed[step] for step in (5, 6, 7, 8)}
    mine = weights(train.path(8), tmp_path / "mine.safetensors")
    theirs = weights(tmp_path / "other", tmp_path / "theirs.safetensors")
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    (event,) = (e for e in train.events if e["event"] == "resumed")
    assert (event["step"], event["path"], event["tokens"]) == (4, str(source), 4 * 2 * 16)
    index = json.loads((train.path(8) / "index.json").read_text())["index"]
    assert index["tokens"] == 8 * 2 * 16
    assert index["optimizer_step"] == 8


def test_the_scale_of_the_loss_goes_on_too(train, monkeypatch):
    monkeypatch.setattr(StepGuard, "GROWTH_INTERVAL_STEPS", 3)
    half = {"train.precision": "fp16"}
    undisturbed = train("other", **half)
    scales = [e["loss_scale"] for e in train.events if e["event"] == "step"]
    assert scales == [2.0**16] * 2 + [2.0**17] * 3 + [2.0**18] * 3
    train(**half)
    (train.path(8) / "rank-00000.safetensors").unlink()
    (train.path(6) / "rank-00000.safetensors").unlink()
    assert train(**half) == {step: undisturbed[step] for step in (5, 6, 7, 8)}
    assert [e["loss_scale"] for e in train.events if e["event"] == "step"] == scales[4:]


def test_a_model_of_one_s_own_is_found_again(train, tmp_path, monkeypatch, capfd):
    examples = Path(__file__).resolve().parents[2] / "examples"
    monkeypatch.syspath_prepend(examples)
    own = {"model.factory": "own_model:build"}
    undisturbed = train("other", **own)
    source = tmp_path / "other" / "checkpoints" / step_name(4)
    resumed = train(**own, **{"checkpoint.resume": source})
    assert resumed == {step: undisturbed[step] for step in (5, 6, 7, 8)}
    capfd.readouterr()
    arguments = [str(tmp_path / "r"), "--prompt=def ", "--tokens=20", "--temperature=0"]
    assert generate.main(arguments) == 0
    assert capfd.readouterr().out.startswith("def ")


def test_auto_takes_the_newest_and_goes_past_damaged_ones(train):
    undisturbed = train()
    newest = train.path(8) / "rank-00000.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    second = train.path(6) / "index.json"
    second.write_text(second.read_text().replace('"step": 6', '"step": 7'))
    assert train() == {step: undisturbed[step] for step in (5, 6, 7, 8)}
    assert f"warning: {newest}: got " in train.said
    assert f"warning: {second}: is damaged" in train.said
    assert f"resumed    {train.path(4)}: step 4" in train.said
    assert [e["alert"] for e in train.events if e["event"] == "alert"] == ["checkpoint_damaged"] * 2
    assert list_steps(train.root) == [2, 4, 6, 8]  # written again
    assert sorted(p.name for p in (train.root / "set-aside").iterdir()) == [
        step_name(6),
        step_name(8),
    ]
    assert (train.root / "latest").read_text() == step_name(8) + "\n"


def test_a_run_past_its_last_step_says_so(train):
    train()
    assert train() == {}
    assert "done       nothing is left to do: train.steps = 8" in train.said
    assert list_steps(train.root) == [2, 4, 6, 8]
    longer = train(**{"train.steps": 10})
    assert list(longer) == [9, 10]
    assert "train.steps was 8 and is 10 now" in train.said


def test_none_starts_anew_and_keeps_what_was_there(train):
    first = train()
    assert train(**{"checkpoint.resume": "none", "train.steps": 4})[1] == first[1]
    assert list_steps(train.root) == [2, 4]
    assert len(list((train.root / "set-aside").iterdir())) == 4


def test_a_checkpoint_that_was_asked_for_must_be_whole(train, tmp_path):
    train()
    damaged = train.path(4) / "rank-00000.safetensors"
    damaged.unlink()
    with pytest.raises(CheckpointError, match=r"checkpoint\.resume: .*00004/rank.*: is missing"):
        train("b", **{"checkpoint.resume": train.path(4)})
    with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
        train("b", **{"checkpoint.resume": tmp_path / "absent"})
    assert train("b", **{"checkpoint.resume": tmp_path / "r"}) == {}  # the run's newest


def test_another_models_checkpoint_is_an_error_not_a_fresh_start(train):
    train()
    with pytest.raises(CheckpointError, match="has another shape"):
        train(**{"model.d_model": 32})
    assert list_steps(train.root) == [2, 4, 6, 8]


def test_what_makes_it_another_run_is_named(train):
    train(**{"train.steps": 2})
    train(**{"train.global_batch_size": 3, "optim.lr": 0.5, "train.log_every_steps": 3})
    assert "a step had 2 sequences and has 3 now" in train.said
    assert "--set train.global_batch_size=2" in train.said
    assert "optim.lr was 0.001 and is 0.5 now" in train.said
    assert "log_every" not in train.said


def test_off_saves_nothing_and_zero_only_the_last(train):
    train(**{"checkpoint.save": "off"})
    assert not train.root.exists()
    train(**{"checkpoint.every_steps": 0})
    assert list_steps(train.root) == [8]


def test_the_signal_saves_at_the_next_step_and_leaves(train, monkeypatch):
    undisturbed = train("other")
    from hpctrain.train.data import TrainingBatches

    read = TrainingBatches.read

    def read_and_signal(self, step, grad_accum_steps):
        if step == 2:
            signal.raise_signal(signal.SIGUSR1)
        return read(self, step, grad_accum_steps)

    monkeypatch.setattr(TrainingBatches, "read", read_and_signal)
    first = train(**{"checkpoint.every_steps": 0, "train.log_every_steps": 3})
    assert list(first) == [3, 4]  # what was not logged yet is
    (stopped,) = (e for e in train.events if e["event"] == "train_stopped")
    assert stopped["step"] == 4
    assert not [e for e in train.events if e["event"] == "train_finished"]
    monkeypatch.setattr(TrainingBatches, "read", read)
    assert train() == {step: undisturbed[step] for step in (5, 6, 7, 8)}


def test_a_state_that_is_broken_is_not_saved(train):
    from hpctrain.errors import TrainingError

    settings = {"optim.lr": 1e30, "optim.warmup_steps": 0, "train.log_every_steps": 100}
    with pytest.raises(TrainingError, match=r"not finite.*There is no checkpoint"):
        train(**settings, **{"checkpoint.every_steps": 4})
    assert list_steps(train.root) == []
    train(**{"train.steps": 4})
    with pytest.raises(TrainingError, match=r"not finite.*The last checkpoint is .*step-00000004"):
        train(**settings)


def test_random_numbers_go_on_where_they_were():
    def draw():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    seed_rng(3, step=5, rank=0)
    text = encode_rng(rng_state(torch.device("cpu")))
    expected = draw()
    seed_rng(3, step=5, rank=1)
    assert draw() != expected
    restore_rng(text, torch.device("cpu"))
    assert draw() == expected
    seed_rng(3, step=5, rank=0)
    assert draw() == expected


# -- what can be done with one -------------------------------------------------------------------


def test_export_writes_the_whole_model_once(train, tmp_path):
    train(**{"train.steps": 2})
    out = tmp_path / "model.safetensors"
    tensors = weights(tmp_path / "r", out)
    assert tensors["embedding.weight"].shape == (256, 16)
    assert not any(name.startswith("optimizer") for name in tensors)
    model, _, tokenizer = generate.load_model(tmp_path / "r")
    assert tokenizer.name == "bytes"
    assert model.state_dict().keys() == tensors.keys()
    assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())
    again = CliRunner().invoke(cli, ["export", str(tmp_path / "r"), "--out", str(out)])
    assert isinstance(again.exception, CheckpointError)
    assert "exists already" in str(again.exception)


def test_generation_is_the_same_for_the_same_seed(train, tmp_path):
    train(**{"train.steps": 2})
    model, seq_len, _ = generate.load_model(tmp_path / "r")
    start = torch.tensor([0, 65, 66])

    def text(temperature, seed):
        return list(generate.generate(model, start, seq_len, 40, temperature, seed))

    assert text(0.9, 1) == text(0.9, 1) != text(0.9, 2)
    assert text(0, 1) == text(0, 2)
    assert len(text(0, 1)) == 40  # more than model.seq_len


def test_generate_prints_the_prompt_and_names_damage(train, tmp_path, capfd):
    train(**{"train.steps": 2})
    arguments = [str(tmp_path / "r"), "--prompt=def ", "--tokens=5", "--temperature=0"]
    assert generate.main(arguments) == 0
    assert capfd.readouterr().out.startswith("def ")
    (train.path(2) / "rank-00000.safetensors").unlink()
    assert generate.main(arguments) == 1
    assert "rank-00000.safetensors: is missing" in capfd.readouterr().err


def test_subwords_become_text_again(train, tmp_path, capfd):
    tiers.require("tokenizers")
    from hpctrain.train.prepare import PrepareRequest, prepare_data

    source, out = str(Path(os.__file__).parent / "json"), tmp_path / "bpe"
    prepare_data(PrepareRequest(sources=(source,), out=out, tokenizer="bpe", vocab_size=300))
    train(**{"data.path": out, "model.vocab_size": 300, "train.steps": 2})
    (out / "tokenizer.json").unlink()  # the checkpoint has its own
    assert json.loads((train.path(2) / "index.json").read_text())["index"]["tokenizer"] == "bpe"
    arguments = [str(tmp_path / "r"), "--prompt=def ü(", "--tokens=5", "--temperature=0"]
    assert generate.main(arguments) == 0
    assert capfd.readouterr().out.startswith("def ü(")
    _, _, tokenizer = generate.load_model(tmp_path / "r")
    text = "größer: 語 and 語"
    prompt, tokens = tokenizer.encode(b"class").tolist(), tokenizer.encode(text.encode()).tolist()
    assert len(tokens) > len(text)  # several tokens a character
    parts = list(generate.spell(tokenizer, prompt, [*tokens, tokenizer.separator, *tokens]))
    assert b"".join(parts).decode() == text
    assert all(part.decode() is not None for part in parts)
    assert len(parts) > 5
    (train.path(2) / "tokenizer.json").write_text("{}")
    assert generate.main(arguments) == 1
    assert "tokenizer.json: got 2 bytes" in capfd.readouterr().err
