"""`hpctrain bench predict`: what is typed, what is said, what is drawn."""

import json

import pytest
from click.testing import CliRunner

from hpctrain.cli import cli, main
from hpctrain.errors import BenchError, ConfigError
from hpctrain.scaling_model.asked import PredictAsked, plan_prediction
from hpctrain.scaling_model.predict import predict_curve
from hpctrain.scaling_model.show import draw_predictions


def run(*arguments):
    done = CliRunner().invoke(cli, ["bench", "predict", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_table_with_bars_bands_and_reasons():
    said = run("--nodes", "2,4,...,1024", "--instance", "p4d.24xlarge", "--model", "xlarge")
    lines = said.splitlines()
    sizes = [int(line.split()[0]) for line in lines if line.strip()[:1].isdigit()]
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
    asked = PredictAsked(nodes="2", link="100gbit", config_name=str(file), gpu="v100")
    step, topologies = plan_prediction(asked)
    assert step.accum == 4
    assert step.exchanged_bytes == pytest.approx(4 * 124e6, rel=0.01)
    assert topologies[0].ranks_per_node == 8


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "--instance, --link: none"),
        ({"instance": "p4d.24xlarge", "link": "1gbit"}, "--instance, --link: both"),
        ({"link": "1gbit", "nodes": "x"}, "--nodes: no list"),
        ({"link": "1gbit", "model": "xlarge", "config_name": "demo"}, "--model, --config: both"),
        ({"link": "quick"}, "--link: no bandwidth"),
        ({"link": "1gbit", "intra_link": "quick"}, "--intra-link: no bandwidth"),
    ],
)
def test_what_cannot_be_meant(asked, words):
    with pytest.raises(ConfigError, match=words):
        plan_prediction(PredictAsked(**{"nodes": "1,2", **asked}))


def test_what_a_measurement_has_cannot_be_given(tmp_path):
    asked = PredictAsked(nodes="2", bench_dir=tmp_path, gpu="a100", mfu=0.4)
    with pytest.raises(ConfigError) as caught:
        plan_prediction(asked)
    assert len(caught.value.messages) == 2


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
