"""`hpctrain bench predict`: what is typed, what is said, what is drawn."""

import json

import pytest
from click.testing import CliRunner

from hpctrain.cli import cli, main
from hpctrain.errors import BenchError, ConfigError
from hpctrain.estimate.nodes import find_node_kind
from hpctrain.scaling_model import from_bench
from hpctrain.scaling_model.asked import PredictAsked, adjust_step, plan_prediction
from hpctrain.scaling_model.from_bench import MeasuredBase
from hpctrain.scaling_model.links import Link
from hpctrain.scaling_model.predict import predict_curve
from hpctrain.scaling_model.show import draw_predictions
from hpctrain.scaling_model.step import BucketModel, StepModel
from hpctrain.scaling_model.topology import Topology
from hpctrain.train.flops import flops_per_token
from hpctrain.train.presets import PRESETS, ModelSize

XLARGE_FLOPS = flops_per_token(ModelSize(**PRESETS["xlarge"], position="learned"))


def run(*arguments):
    done = CliRunner().invoke(cli, ["bench", "predict", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_table_with_bars_bands_and_reasons():
    said = run("--nodes", "2,4,...,1024", "--instance", "p4d.24xlarge", "--model", "xlarge")
    lines = said.splitlines()
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
    sizes = [int(row[0].partition("*")[0]) for row in rows]
    assert [row[0].count("*") for row in rows] == [0, 0] + [1] * 8
    assert "Held against measurements: up to 4 nodes" in said
    assert sizes == [2**k for k in range(1, 11)]
    assert "█" in said
    assert "Error band: link between nodes ±28%" in said
    assert "NVIDIA/nccl#495, #527" in said  # where the numbers are from
    assert "What grows next: " in said


def test_json_has_step_and_predictions():
    record = json.loads(run("--nodes", "1,8", "--link", "100gbit,20us", "--accum", "4", "--json"))
    assert [p["nodes"] for p in record["predictions"]] == [1, 8]
    assert record["step"]["accum"] == 4
    for one in record["predictions"]:
        assert one["low_s"] <= one["step_s"] <= one["high_s"]


def test_compression_and_accumulation_lift_a_slow_link():
    def efficiency(*more):
        words = ("--nodes", "4", "--link", "10gbit,50us", "--json")
        return json.loads(run(*words, *more))["predictions"][0]["efficiency"]

    plain, halved, both = (
        efficiency(),
        efficiency("--compression", "fp16"),
        efficiency("--compression", "fp16", "--accum", "8"),
    )
    assert plain < halved < both


def test_a_configuration_file_says_what_is_trained(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        '[model]\npreset = "small"\n[train]\nbatch_size_per_rank = 16\ngrad_accum_steps = 4\n'
        'precision = "fp16"\n[comm]\nbucket_mb = 50\n'
    )
    asked = PredictAsked(nodes="2", link="100gbit", config_name=str(file), gpu="v100", mfu=0.3)
    step, topologies = plan_prediction(asked)
    assert step.accum == 4
    assert step.exchanged_bytes == pytest.approx(4 * 124e6, rel=0.01)
    assert topologies[0].ranks_per_node == 8


@pytest.mark.parametrize("gpu", ["v100", "t4"])
def test_gpus_without_bf16_are_asked_for_what_they_have(gpu):
    step, topologies = plan_prediction(
        PredictAsked(nodes="2", link="100gbit", gpu=gpu, model="xlarge", mfu=0.3)
    )
    peak = {"v100": 125e12, "t4": 65e12}[gpu]
    assert step.alone_s == pytest.approx(8 * 2048 * XLARGE_FLOPS / (0.3 * peak), rel=0.01)
    nvlink = {"v100": True, "t4": False}[gpu]
    assert (topologies[0].intra.bandwidth_bytes_per_s > 50e9) == nvlink


def test_a_precision_that_is_set_counts_without_a_file():
    def alone_s(*overrides):
        asked = PredictAsked(nodes="2", link="100gbit", gpu="a100", mfu=0.5, overrides=overrides)
        return plan_prediction(asked)[0].alone_s

    assert alone_s("train.precision=tf32") == pytest.approx(2 * alone_s(), rel=1e-6)
    assert alone_s("train.precision=fp32") == pytest.approx(16 * alone_s(), rel=1e-6)


@pytest.mark.parametrize("name", ["p6-b200.48xlarge", "g5.xlarge", "a2-ultragpu-2g"])
def test_machines_that_an_estimate_knows_are_known(name):
    kind = find_node_kind(name)
    _, topologies = plan_prediction(PredictAsked(nodes="2", instance=name, mfu=0.3))
    assert (topologies[0].inter, topologies[0].intra) == (kind.inter, kind.intra)
    assert topologies[0].ranks_per_node == kind.gpus


@pytest.mark.parametrize(
    ("measured", "asked", "factor"),
    [("none", None, 1), ("none", "fp16", 0.5), ("fp16", "fp16", 1), ("fp16", "none", 2)],
)
def test_compression_beside_a_measurement_is_what_would_be(measured, asked, factor):
    step = StepModel(0, 1, 2, 0, (BucketModel(8.0, 0.5), BucketModel(4.0, 1.0)))
    found = adjust_step(step, measured, 3, asked)
    assert [one.bytes_ for one in found.buckets] == [8.0 * factor, 4.0 * factor]
    assert found.accum == 3
    assert adjust_step(step, measured, None, None) == step


def test_links_beside_a_measurement_count(monkeypatch, tmp_path):
    wire = Link(1e-3, 1e6, source="measured")
    base = MeasuredBase(
        step=StepModel(0, 1, 2, 0, (BucketModel(8.0, 1.0),)), inter=wire, intra=wire,
        ranks_per_node=2, algorithm="openmpi", compression="none",
    )  # fmt: skip
    monkeypatch.setattr(from_bench, "calibrate_from_bench", lambda folder: base)

    def found(**more):
        return plan_prediction(PredictAsked(nodes="1,4", bench_dir=tmp_path, **more))[1][1]

    assert found() == Topology(4, 2, wire, wire, "openmpi")
    assert found(intra_link="1gbit,5us").intra.latency_s == 5e-6
    assert found(intra_link="1gbit,5us").inter == wire
    assert found(link="1gbit,5us").inter.latency_s == 5e-6
    assert found(instance="p4d.24xlarge").intra == wire  # measured


def test_every_mistake_is_named_at_once():
    asked = PredictAsked(
        nodes="x", link="quick", intra_link="slow", gpu="foo", mfu=3.0,
        overrides=("train.precision=fp17",),
    )  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        plan_prediction(asked)
    said = [message.partition(":")[0] for message in caught.value.messages]
    assert said == [
        "--nodes", "--link", "--intra-link", "--gpu", "--set train.precision=fp17", "--mfu",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "--instance, --link: none"),
        ({"instance": "p4d.24xlarge", "link": "1gbit"}, "--instance, --link: both"),
        ({"link": "1gbit", "nodes": "x"}, "--nodes: no list"),
        ({"link": "1gbit", "model": "xlarge", "config_name": "demo"}, "--model, --config: both"),
        ({"link": "quick"}, "--link: no bandwidth"),
        ({"instance": "p4d.24xlarge", "gpu": "h100"}, "--gpu, --instance: they disagree"),
        ({"instance": "p4d.24xlrge"}, "--instance: unknown machine"),
        ({"link": "1gbit", "intra_link": "quick"}, "--intra-link: no bandwidth"),
    ],
)
def test_what_cannot_be_meant(asked, words):
    with pytest.raises(ConfigError, match=words):
        plan_prediction(PredictAsked(**{"nodes": "1,2", **asked}))


def test_what_a_measurement_has_cannot_be_given(tmp_path):
    asked = PredictAsked(
        nodes="2", bench_dir=tmp_path, gpu="a100", mfu=0.4, overrides=("comm.bucket_mb=1",),
        link="1gbit", instance="p4d.24xlarge",
    )  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        plan_prediction(asked)
    said = [message.partition(":")[0] for message in caught.value.messages]
    assert said == ["--instance, --link", "--gpu", "--mfu", "--set"]


def test_mistakes_are_usage_errors(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["bench", "predict", "--nodes", "nine"])
    assert caught.value.code == 2
    assert "--nodes: no list of numbers" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_it_is_drawn(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    step, topologies = plan_prediction(PredictAsked(nodes="1,2,4", link="100gbit"))
    path = tmp_path / f"plot{suffix}"
    draw_predictions(predict_curve(step, topologies), path, "gradients over a link")
    assert path.stat().st_size > 5000
    if suffix == ".svg":
        assert "<svg" in path.read_text()


def test_a_drawing_that_cannot_be(tmp_path):
    pytest.importorskip("matplotlib")
    step, topologies = plan_prediction(PredictAsked(nodes="2", link="100gbit"))
    with pytest.raises(BenchError, match=r"cannot be drawn.*\.svg"):
        draw_predictions(predict_curve(step, topologies), tmp_path / "plot.nothing", "")
