"""Measured runs come before published figures, and none of them may claim over 100 %."""

import json
import os

import pytest
from estimating import run, run_json

from hpctrain.bench.samples import RankSteps, Sample
from hpctrain.estimate.measured import mfu_of
from hpctrain.estimate.model import cost_model
from hpctrain.gpu_peaks import peak_flops
from hpctrain.train.presets import PRESETS, ModelSize

SIZE = ModelSize(**PRESETS["xlarge"], position="learned")
COST = cost_model(SIZE)
A100 = "NVIDIA A100-SXM4-40GB"
STEP_TOKENS = 65536
ASKED = ("--model", "xlarge", "--tokens", "1B", "--gpu", "a100-80gb", "--gpus", "8")


def step_s(mfu, np, device=A100):
    return STEP_TOKENS * COST.flops_per_token / np / (mfu * peak_flops(device, "bf16"))


def sample(mfu, np=8, exposed_s=0.0, device=A100, precision="bf16"):
    """Return a measurement whose computing has that MFU, with an exposed exchange on top."""
    each_s = step_s(mfu, np, device) + exposed_s
    ranks = tuple(
        RankSteps(rank=rank, host="node", device=f"cuda:{rank}", data_s=(0.0,) * 5,
                  forward_s=(0.1,) * 5, backward_s=(0.2,) * 5,
                  exposed_comm_s=(exposed_s + rank / 10,) * 5, optimizer_s=(0.0,) * 5)
        for rank in range(np)
    )  # fmt: skip
    return Sample(
        np=np, step_time_s=(each_s,) * 5, losses=(), tokens_per_step=STEP_TOKENS,
        precision=precision, params=COST.params, flops_per_token=COST.flops_per_token,
        peak_flops=peak_flops(device, "bf16"), device_name=device, ranks=ranks,
    )  # fmt: skip


def make_run(folder, measured, *, recomputes=False, at_s=1000):
    """Write what a run of the trainer leaves, as far as an estimate reads it."""
    (folder / "ranks").mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"np": measured.np}))
    (folder / "run.toml").write_text(
        f"[train]\nactivation_checkpointing = {str(recomputes).lower()}\n"
    )
    started = {name: getattr(measured, name) for name in
               ("precision", "params", "flops_per_token", "peak_flops", "device_name",
                "tokens_per_step")}  # fmt: skip
    events = [{"event": "train_started", **started}]
    events += [
        {"event": "step", "step": step, "step_time_s": measured.step_time_s[0], "loss": 4.0}
        for step in range(1, 31)
    ]
    (folder / "events.jsonl").write_text("".join(json.dumps(each) + "\n" for each in events))
    for rank in measured.ranks:
        record = {"event": "rank_step", "step": 20, "host": "node", "device": "cuda", "data_s": 0.0,
                  "forward_s": 0.1, "backward_s": 0.2, "optimizer_s": 0.0,
                  "exposed_comm_s": rank.exposed_comm_s[0]}  # fmt: skip
        (folder / f"ranks/rank-{rank.rank:05d}.jsonl").write_text(json.dumps(record) + "\n")
    os.utime(folder / "events.jsonl", (at_s, at_s))


def test_the_newest_run_that_fits_is_taken(capsys, tmp_path):
    make_run(tmp_path / "old", sample(0.35), at_s=1000)
    make_run(tmp_path / "new", sample(0.41), at_s=2000)
    make_run(tmp_path / "other-gpu", sample(0.2, device="NVIDIA H100 80GB HBM3"), at_s=3000)
    make_run(tmp_path / "other-format", sample(0.1, precision="fp32"), at_s=4000)
    _, record = run_json(capsys, *ASKED, "--runs-dir", str(tmp_path))
    assert record["mfu"]["kind"] == "measured"
    assert record["mfu"]["value"] == pytest.approx(0.41)
    assert str(tmp_path / "new") in record["mfu"]["source"]


def test_the_exposed_exchange_is_left_out(capsys, tmp_path):
    # Of several ranks the one that waits least: what the others wait for is the slowest rank.
    assert mfu_of(sample(0.4, exposed_s=0.5)) == pytest.approx(0.4)
    make_run(tmp_path / "run", sample(0.4, exposed_s=0.5))
    _, record = run_json(capsys, *ASKED, "--runs-dir", str(tmp_path))
    assert record["values"]["mfu"] == pytest.approx(0.4)


def test_a_bench_is_read_too(capsys, tmp_path):
    line = {"case": "weak-bf16-np8", "run": "runs/a", "sample": sample(0.44).as_json()}
    (tmp_path / "samples.jsonl").write_text(json.dumps(line) + '\n{"case": "half a li')
    _, record = run_json(capsys, *ASKED, "--runs-dir", str(tmp_path))
    assert record["mfu"]["kind"] == "measured"
    assert record["values"]["mfu"] == pytest.approx(0.44)


def test_work_that_was_done_twice_is_not_added_again(capsys, tmp_path):
    make_run(tmp_path / "plain", sample(0.4))
    again = ("--set", "train.activation_checkpointing=true", "--runs-dir", str(tmp_path))
    _, added = run_json(capsys, *ASKED, *again)
    make_run(tmp_path / "again", sample(0.4), recomputes=True, at_s=5000)
    _, had = run_json(capsys, *ASKED, *again)
    assert added["values"]["tokens_per_s"] == pytest.approx(
        had["values"]["tokens_per_s"] * 3 / 4, rel=0.02
    )


def test_a_run_that_claims_over_100_percent_is_refused_by_name(capsys, tmp_path):
    make_run(tmp_path / "wonder", sample(1.2))
    code, out, err = run(capsys, *ASKED, "--runs-dir", str(tmp_path))
    assert code == 1
    assert out == ""
    assert f"{tmp_path / 'wonder'}: it cannot have computed so much, got an MFU of 120%" in err


def test_unfinished_runs_and_other_programs_are_passed_over(capsys, tmp_path):
    for name, text in (("empty", ""), ("torn", '{"event": "st'), ("other", '{"event": "x"}\n')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "events.jsonl").write_text(text)
    _, record = run_json(capsys, *ASKED, "--runs-dir", str(tmp_path))
    assert record["mfu"]["kind"] == "published"


def rewrite_settings(folder, *, seq_len=2048, compiled=False):
    (folder / "run.toml").write_text(
        f'[model]\npreset = "xlarge"\nseq_len = {seq_len}\n'
        f"[train]\nactivation_checkpointing = false\ncompile = {str(compiled).lower()}\n"
    )


def test_a_run_of_another_length_or_compiled_speaks_for_no_other(capsys, tmp_path):
    make_run(tmp_path / "same", sample(0.40), at_s=1000)
    rewrite_settings(tmp_path / "same")
    make_run(tmp_path / "shorter", sample(0.50), at_s=2000)
    rewrite_settings(tmp_path / "shorter", seq_len=512)
    make_run(tmp_path / "compiled", sample(0.45), at_s=3000)
    rewrite_settings(tmp_path / "compiled", compiled=True)
    _, record = run_json(capsys, *ASKED, "--runs-dir", str(tmp_path))
    assert record["mfu"]["value"] == pytest.approx(0.40)
    assert "2048 tokens a sequence, compiled: no" in record["mfu"]["source"]
    assert "20 timed steps" in record["mfu"]["source"]
    _, record = run_json(
        capsys, *ASKED, "--set", "train.compile=true", "--runs-dir", str(tmp_path)
    )  # fmt: skip
    assert record["mfu"]["value"] == pytest.approx(0.45)


def test_a_run_with_enough_steps_is_taken_before_a_newer_one_with_few(capsys, tmp_path):
    make_run(tmp_path / "long", sample(0.40), at_s=1000)
    make_run(tmp_path / "short", sample(0.30), at_s=2000)
    lines = (tmp_path / "short/events.jsonl").read_text().splitlines()
    (tmp_path / "short/events.jsonl").write_text("\n".join(lines[:14]) + "\n")  # 3 timed
    os.utime(tmp_path / "short/events.jsonl", (2000, 2000))
    _, record = run_json(capsys, *ASKED, "--runs-dir", str(tmp_path))
    assert record["mfu"]["value"] == pytest.approx(0.40)
    assert str(tmp_path / "long") in record["mfu"]["source"]
