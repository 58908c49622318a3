"""`hpctrain estimate` on the command line: plans that hold, that cannot, and wrong options."""

import json
import re
import shlex
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from estimating import run, run_json

from hpctrain.cli import cli, main

ROOT = Path(__file__).parents[2]
# 1.3B parameters, 100B tokens, 8 A100 as 4 nodes of 2, batches of 524,288 tokens.
PLAN = ("--model", "xlarge", "--tokens", "100B", "--gpu", "a100-80gb", "--gpus", "8",
        "--gpus-per-node", "2", "--global-batch", "524288 tokens",
        "--runs-dir", "none")  # fmt: skip


def verdict(record, goal):
    return next(each for each in record["verdicts"] if each["goal"] == goal)


def test_the_same_in_its_own_time_holds(capsys):
    code, record = run_json(capsys, *PLAN, "--link", "100gbit,20us", "--deadline", "10d")
    assert code == 0
    assert record["holds"]
    assert record["advice"] == []


def test_the_price_is_of_the_nodes_that_are_estimated(capsys):
    _, record = run_json(capsys, *PLAN)
    gcp, aws = record["offers"]
    assert (gcp["machine"], gcp["machines"], gcp["other_shape"]) == ("a2-ultragpu-2g", 4, False)
    assert (aws["machine"], aws["other_shape"]) == ("p4de.24xlarge", True)
    assert record["values"]["on_demand_usd"] == record["values"]["gcp_on_demand_usd"]
    assert "aws_on_demand_usd" not in record["values"]
    assert record["values"]["aws_other_nodes_usd_per_hour"] == pytest.approx(27.447)
    code, out, _ = run(capsys, *PLAN, "--budget", "6000")
    assert code == 1  # the other machine would be cheaper, and is not what was asked
    assert "in no verdict" in out


def test_a_lone_gpu_is_advised_nodes_of_the_size_that_are_sold(capsys):
    asked = ("--model", "xlarge", "--tokens", "100B", "--gpu", "a100-80gb", "--gpus", "1",
             "--deadline", "4d", "--runs-dir", "none")  # fmt: skip
    _, record = run_json(capsys, *asked)
    smallest = record["smallest_cluster"]
    assert smallest["gpus_per_node"] == 8
    assert smallest["gpus"] == 8 * smallest["nodes"]
    assert smallest["hours"] <= 96
    assert smallest["usd"] > 0
    assert "assumption" in smallest["link"]
    assert "100gbit,20us" in record["advice"][0]
    # Told a size, it keeps that.
    _, told = run_json(capsys, *asked, "--gpus-per-node", "1", "--link", "400gbit,10us")
    assert told["smallest_cluster"]["gpus_per_node"] == 1
    # Less than a node where that does.
    _, small = run_json(capsys, *asked[:-4], "--deadline", "30d", "--runs-dir", "none")
    assert (small["smallest_cluster"]["nodes"], small["smallest_cluster"]["gpus"]) == (1, 2)


def test_the_smallest_cluster_is_the_smallest(capsys):
    asked = ("--model", "xlarge", "--tokens", "100B", "--instance", "p4de.24xlarge",
             "--runs-dir", "none", "--deadline", "48h")  # fmt: skip
    _, record = run_json(capsys, *asked, "--gpus", "8")
    nodes, gpus = map(int, re.search(r"do: (\d+) nodes x 8 = (\d+)", record["advice"][0]).groups())
    assert gpus == 8 * nodes
    assert run_json(capsys, *asked, "--gpus", str(gpus))[0] == 0
    assert run_json(capsys, *asked, "--gpus", str(gpus - 8))[0] == 1


def test_a_budget_that_does_not_suffice(capsys):
    code, record = run_json(capsys, *PLAN, "--budget", "2000")
    assert code == 1
    told = verdict(record, "budget")
    money = r"\$\d,\d{3}"
    said = rf"{money}, {money} to {money}, for [\d,]+ GPU-hours on demand, \$2,000 allowed"
    assert re.match(said, told["words"])
    assert "tokens" in told["advice"]
    assert record["advice"][0].startswith("of these nodes and this link none")
    code, record = run_json(capsys, *PLAN, "--budget", "20k")
    assert code == 0


def test_deadline_and_budget_that_no_cluster_holds_together(capsys):
    asked = ("--model", "xlarge", "--tokens", "100B", "--instance", "p4de.24xlarge", "--gpus", "8",
             "--runs-dir", "none", "--deadline", "48h", "--budget", "1000")  # fmt: skip
    _, record = run_json(capsys, *asked)
    assert "for the deadline alone: " in record["advice"][0]


def test_a_batch_that_does_not_fit_says_what_would(capsys):
    code, record = run_json(capsys, *PLAN, "--accum", "1")
    assert code == 1
    assert not record["fits"]
    accum = re.search(r"--accum (\d+)", verdict(record, "memory")["advice"])[1]
    assert run_json(capsys, *PLAN, "--accum", accum)[0] == 0
    # Without being told, it takes the fewest micro-batches that fit.
    assert run_json(capsys, *PLAN)[1]["cluster"]["accum"] == int(accum)


def test_everything_that_is_wrong_is_told_at_once(capsys):
    code, _, err = run(
        capsys, "--model", "xlarges", "--tokens", "100X", "--gpu", "a10", "--gpus", "8",
        "--mfu", "120%", "--deadline", "soon", "--budget", "-3", "--link", "fast",
        "--efficiency", "2", "--precision", "bf", "--tokens-per-s", "?",
    )  # fmt: skip
    assert code == 2
    wrong = ("--model", "--tokens:", "--gpu:", "--mfu:", "--deadline:", "--budget:", "--link:",
             "--efficiency:", "--precision", "--tokens-per-s:")  # fmt: skip
    for option in wrong:
        assert f"error: {option}" in err
    assert "Did you mean 'a10g'?" in err
    assert "Did you mean 'xlarge'?" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "small"), ["--gpu: not given", "--gpus: not given", "--tokens: not given"]),
        (("--gpu", "h100", "--gpus", "8", "--tokens", "1B"), ["--model, --config: got neither"]),
        (("--model", "small", "--config", "demo", "--gpu", "h100", "--gpus", "8"), ["got both"]),
        (("--model", "xlarge", "--tokens", "1B", "--gpu", "a100", "--gpus", "12"),
         ["--gpus: no whole number of nodes, got 12 with 8 a node"]),
        (("--model", "xlarge", "--tokens", "1B", "--gpu", "h100", "--instance", "p4d.24xlarge"),
         ["--gpu: p4d.24xlarge has another, got h100; expected a100-40gb"]),
        (("--model", "xlarge", "--tokens", "1B", "--instance", "p4d.24xlarg"),
         ["Did you mean 'p4d.24xlarge'?"]),
        (("--model", "xlarge", "--tokens", "1B", "--gpu", "t4", "--gpus", "8", "--precision",
          "bf16"), ["--precision: t4 has no bf16", "expected one of fp16, fp32"]),
        (("--model", "xlarge", "--tokens", "1B", "--gpu", "a100", "--gpus", "8",
          "--global-batch", "1000 tokens"), ["no whole number of sequences"]),
        (("--model", "xlarge", "--tokens", "1B", "--gpu", "a100", "--gpus", "8",
          "--global-batch", "4"), ["fewer sequences than GPUs, got 4 for 8"]),
        # A GPU of which nobody has published a figure for such a model: no wish takes its place.
        (("--model", "xlarge", "--tokens", "1B", "--gpu", "l4", "--gpus", "8"),
         ["--mfu: nothing is measured or published", "--runs-dir"]),
        (("--model", "tiny", "--tokens", "1B", "--gpu", "a100", "--gpus", "8"),
         ["--mfu: nothing is measured or published"]),
    ],
)  # fmt: skip
def test_wrong_options(capsys, arguments, words):
    code, out, err = run(capsys, *arguments, "--runs-dir", "none")
    assert code == 2
    assert out == ""
    for each in words:
        assert each in err


def test_json_has_everything_and_a_source_for_it(capsys):
    _, record = run_json(capsys, *PLAN, "--deadline", "30h")
    assert record["schema"] == 1
    assert all(line["source"] for line in record["lines"])
    assert {line["group"] for line in record["lines"]} == {
        "model", "cluster", "memory", "speed", "time", "checkpoints", "money"
    }  # fmt: skip
    values = record["values"]
    parts = ("weights", "gradients", "optimizer_states", "samples", "activations",
             "16_bit_weight_copies", "logits")  # fmt: skip
    assert sum(values[f"{part}_bytes"] for part in parts) == pytest.approx(values["peak_bytes"])
    assert values["gpu_hours"] == pytest.approx(8 * values["expected_s"] / 3600)
    assert values["interval_s"] > values["checkpoint_bytes"] / 1e9
    assert values["write_s"] == pytest.approx(values["checkpoint_bytes"] / 1e9)
    for key in ("stall_s", "restart_s", "interval_steps", "ceiling_s", "ceiling_tokens_per_s",
                "waiting_s", "exposed_s", "on_demand_usd"):  # fmt: skip
        assert values[key] > 0
    for name in ("mfu", "efficiency", "tokens_per_s", "expected_s", "gpu_hours", "usd"):
        assert record["band"][name]["low"] < record["band"][name]["high"]
    smallest = record["smallest_cluster"]
    assert smallest["gpus"] == 2 * smallest["nodes"]
    assert smallest["hours"] <= 30
    assert smallest["usd"] > 0
    assert record["accumulation"]["accum"] >= 1
    assert {offer["provider"] for offer in record["offers"]} == {"aws", "gcp"}
    assert all("as of" in offer["source"] for offer in record["offers"])


def test_the_table_says_where_each_figure_comes_from(capsys):
    code, out, err = run(capsys, *PLAN, "--deadline", "30h")
    assert code == 1
    assert err == ""
    for words in ("published, ±10%: llm-foundry", "6·N + 12·L·d·s", "assumption", "as of 2025-11",
                  "deadline    no: impossible", "419 in 54 days"):  # fmt: skip
        assert words in out


def test_an_mfu_above_what_matrix_products_reach_is_warned_of(capsys):
    _, record = run_json(capsys, *PLAN, "--mfu", "0.9")
    assert any("above what matrix products alone" in note for note in record["notes"])
    _, record = run_json(capsys, *PLAN, "--mfu", "0.5")
    assert not any("matrix products" in note for note in record["notes"])
    assert record["mfu"]["kind"] == "given"


def test_a_configuration_file_brings_its_own(capsys, tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(
        '[model]\npreset = "large"\n[train]\ntokens = 5_000_000_000\nprecision = "bf16"\n'
        "global_batch_size = 512\ngrad_accum_steps = 4\nactivation_checkpointing = true\n"
        "[optim]\nsharded = true\n"
    )
    asked = ("--config", str(path), "--instance", "p4d.24xlarge", "--gpus", "16",
             "--runs-dir", "none")  # fmt: skip
    code, record = run_json(capsys, *asked)
    assert code == 0
    assert record["values"]["tokens"] == 5_000_000_000
    assert record["values"]["tokens_per_step"] == 512 * 1024
    assert record["cluster"]["accum"] == 4
    assert record["cluster"]["recomputes"]
    assert record["cluster"]["sharded"]
    _, other = run_json(capsys, *asked, "--set", "train.activation_checkpointing=false")
    assert other["values"]["activations_bytes"] > 3 * record["values"]["activations_bytes"]
    assert other["values"]["training_s"] < record["values"]["training_s"]


def test_own_prices_and_storage(capsys, tmp_path):
    prices = tmp_path / "prices.toml"
    prices.write_text('as_of = "2031-01"\n[aws.machines]\n"p4de.24xlarge" = 80.0\n')
    plan = ("--model", "xlarge", "--tokens", "100B", "--instance", "p4de.24xlarge",
            "--runs-dir", "none")  # fmt: skip
    _, listed = run_json(capsys, *plan)
    _, own = run_json(capsys, *plan, "--prices", str(prices), "--storage", "100mbyte")
    assert own["values"]["aws_on_demand_usd"] > 2 * listed["values"]["aws_on_demand_usd"]
    assert "2031-01" in own["offers"][0]["source"]
    assert own["values"]["goodput"] < listed["values"]["goodput"]
    _, flat = run_json(capsys, *PLAN, "--usd-per-gpu-hour", "1", "--budget", "1000")
    assert flat["values"]["own_usd"] == pytest.approx(flat["values"]["gpu_hours"])
    assert "$1,000 allowed" in verdict(flat, "budget")["words"]


@pytest.mark.parametrize(
    ("option", "typed", "offered"),
    [("--model", "x", {"xlarge"}), ("--gpu", "a100", {"a100", "a100-40gb", "a100-80gb"}),
     ("--instance", "p4d", {"p4d.24xlarge", "p4de.24xlarge"})],
)  # fmt: skip
def test_completion(option, typed, offered):
    completer = ShellComplete(cli, {}, "hpctrain", "_HPCTRAIN_COMPLETE")
    found = completer.get_completions(["estimate", option], typed)
    assert {item.value for item in found} == offered


def test_json_of_a_missed_plan_is_still_json(capsys):
    code, out, _ = run(capsys, *PLAN, "--deadline", "1h", "--json")
    assert code == 1
    assert json.loads(out)["holds"] is False


def test_a_cluster_that_fails_faster_than_it_saves(capsys):
    code, record = run_json(
        capsys, "--model", "xlarge", "--tokens", "100B", "--gpu", "h100", "--gpus", "100000",
        "--storage", "10mbyte", "--runs-dir", "none",
    )  # fmt: skip
    assert code == 1
    assert record["values"]["goodput"] == 0
    assert record["values"]["expected_s"] is None
    assert verdict(record, "goodput")["words"].startswith("none: a failure every")


def test_a_slow_link_within_nodes_counts(capsys):
    quick, slow = (
        run_json(capsys, *PLAN, "--link", "400gbit,10us", *more)[1]["values"]["efficiency"]
        for more in ((), ("--intra-link", "4gbyte,20us"))
    )
    assert slow < quick


def test_steps_of_a_file_are_tokens_only_with_so_many_gpus(capsys, tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('[model]\npreset = "large"\n[train]\nsteps = 100\nprecision = "bf16"\n')
    asked = ("--config", str(path), "--runs-dir", "none")
    _, record = run_json(capsys, *asked, "--instance", "p4d.24xlarge")
    assert record["values"]["tokens"] == 100 * 8 * 8 * 1024
    code, _, err = run(capsys, *asked, "--what-if")
    assert code == 2
    assert "--tokens: not given" in err


def test_it_is_as_efficient_as_bench_predict_says(capsys):
    """The same job on the same link: two commands, one model."""
    link = ("--link", "100gbit,20us", "--gpus-per-node", "2", "--mfu", "0.5", "--accum", "3")
    asked = (*link, "--model", "xlarge", "--gpu", "a100-80gb")
    _, record = run_json(
        capsys, *asked, "--tokens", "1B", "--gpus", "8", "--global-batch", "192"
    )  # fmt: skip
    with pytest.raises(SystemExit):
        main(["bench", "predict", *asked, "--nodes", "4", "--json"])
    text = capsys.readouterr().out
    efficiency = float(re.search(r'"efficiency": ([0-9.]+)', text)[1])
    assert record["values"]["efficiency"] == pytest.approx(efficiency, rel=1e-3)


def test_the_commands_of_the_page_are_understood(capsys):
    """What stands under each command on the page is what it prints."""
    page = (ROOT / "docs/estimate.md").read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```console\n(.+?)^```", page, re.MULTILINE | re.DOTALL)
    shown = [each for block in blocks for each in re.split(r"^(?=\$ hpctrain)", block, flags=re.M)]
    shown = [each for each in shown if each.startswith("$ hpctrain estimate")]
    assert len(shown) >= 4
    for each in shown:
        command, *lines = each.splitlines()
        code, out, err = run(capsys, *shlex.split(command)[3:], "--runs-dir", "none")
        assert code in (0, 1), err
        if "$ echo $?" in lines:
            assert str(code) == lines[lines.index("$ echo $?") + 1]
            lines = lines[: lines.index("$ echo $?")]
        printed = " ".join(out.split())
        pieces = [piece for line in lines for piece in line.split("…") if piece.strip()]
        assert pieces
        for piece in pieces:
            assert_printed(" ".join(piece.split()), printed)


def assert_printed(piece, printed):
    """Check the words, and the numbers to a quarter: the scaling model and prices move."""
    number = r"\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?"
    words = re.split(number, piece)
    found = re.search(f"({number})".join(map(re.escape, words)), printed)
    assert found, piece
    for shown, now in zip(re.findall(number, piece), found.groups(), strict=True):
        values = [float(each.replace(",", "")) for each in (shown, now)]
        assert values[1] == pytest.approx(values[0], rel=0.25, abs=1), piece
