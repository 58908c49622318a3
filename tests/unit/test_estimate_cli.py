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
WIDE_AREA = ("10gbit,20ms", "1gbit,20ms")


def verdict(record, goal):
    return next(each for each in record["verdicts"] if each["goal"] == goal)


def test_100b_tokens_on_8_a100_in_30_hours_is_impossible(capsys):
    code, record = run_json(capsys, *PLAN, "--link", "100gbit,20us", "--deadline", "30h")
    assert code == 1
    assert not record["holds"]
    told = verdict(record, "deadline")
    assert told["words"].startswith("impossible, 3.4 times the peak would be needed")
    assert "at 100 % MFU, 8 x 312 TFLOP/s, it takes 101 h" in told["words"]
    assert record["values"]["training_s"] > 2 * 30 * 3600
    # With its own batch no number of such nodes does; with a larger one some do.
    assert record["advice"][0].startswith("with that global batch none, up to 128 nodes")
    smallest = re.search(r"(\d+) nodes x 2 = (\d+) a100-80gb: ([\d.]+) h", record["advice"][0])
    assert 18 <= int(smallest[1]) <= 40  # 17 without any exchange
    assert float(smallest[3]) <= 30


def test_the_same_in_its_own_time_holds(capsys):
    code, record = run_json(capsys, *PLAN, "--link", "100gbit,20us", "--deadline", "10d")
    assert code == 0
    assert record["holds"]
    assert record["advice"] == []


def test_150k_tokens_per_s_on_one_a100_is_impossible(capsys):
    code, record = run_json(
        capsys, "--model", "xlarge", "--tokens", "100B", "--gpu", "a100-80gb", "--gpus", "1",
        "--tokens-per-s", "150K", "--runs-dir", "none",
    )  # fmt: skip
    assert code == 1
    told = verdict(record, "rate")
    assert told["words"].startswith("impossible: 150K tokens/s would be 436% MFU")
    assert "34.38K tokens/s" in told["words"]


@pytest.mark.parametrize("link", ["100gbit,20us", "200gbit,10us", "400gbit,10us"])
def test_85_percent_over_4_nodes_is_possible_within_a_site(capsys, link):
    code, record = run_json(capsys, *PLAN, "--link", link, "--efficiency", "85%")
    assert code == 0
    assert 0.85 <= record["values"]["efficiency"] <= 1


@pytest.mark.parametrize(("link", "expected"), [("50gbit,20us", 0.70), ("25gbit,20us", 0.48)])
def test_85_percent_over_4_nodes_is_not_possible_below_100_gbit(capsys, link, expected):
    code, record = run_json(capsys, *PLAN, "--link", link, "--efficiency", "85%")
    assert code == 1
    assert record["values"]["efficiency"] == pytest.approx(expected, abs=0.05)
    assert verdict(record, "efficiency")["kind"] == "no"
    assert record["band"]["efficiency"]["high"] < 0.85


def test_at_100_gbit_it_is_expected_and_not_certain(capsys):
    _, record = run_json(capsys, *PLAN, "--link", "100gbit,20us", "--efficiency", "85%")
    told = verdict(record, "efficiency")
    assert told["kind"] == "holds only if"
    assert told["holds"]
    assert not record["certain"]
    assert told["low"] < 0.85 <= record["values"]["efficiency"] < told["high"]
    assert 0.5 <= told["odds"] < 1
    _, record = run_json(capsys, *PLAN, "--link", "400gbit,10us", "--efficiency", "85%")
    assert verdict(record, "efficiency")["kind"] == "holds"
    assert record["certain"]


@pytest.mark.parametrize(
    ("hours", "kind", "code"),
    [(100, "no", 1), (150, "no", 1), (185, "holds only if", 1), (210, "holds only if", 0),
     (260, "holds", 0)],
)  # fmt: skip
def test_a_limit_within_the_band_is_told_with_its_odds(capsys, hours, kind, code):
    link = ("--link", "100gbit,20us")
    found, record = run_json(capsys, *PLAN, *link, "--deadline", f"{hours}h")
    told = verdict(record, "deadline")
    band = record["band"]["expected_s"]
    assert (told["kind"], found) == (kind, code)
    assert told["words"].startswith("impossible") == (hours * 3600 < record["values"]["ceiling_s"])
    assert (band["low"] < hours * 3600 < band["high"]) == (kind == "holds only if")
    assert band["low"] < band["expected"] < band["high"]
    assert band["low"] >= record["values"]["ceiling_s"]
    if kind == "holds only if":
        assert re.match(
            r"a step takes at most [\d.]+ s .*odds about \d+% over the band", told["words"]
        )
        assert 0 < told["odds"] < 1
    _, out, _ = run(capsys, *PLAN, *link, "--deadline", f"{hours}h")
    assert f"deadline    {kind}" in out


def test_money_and_gpu_hours_have_the_same_band_as_time(capsys):
    _, record = run_json(capsys, *PLAN, "--link", "100gbit,20us", "--budget", "8500")
    band = record["band"]
    for of in ("usd", "gpu_hours", "training_s", "step_s"):
        for edge in ("low", "high"):
            share = band["expected_s"][edge] / band["expected_s"]["expected"]
            assert band[of][edge] / band[of]["expected"] == pytest.approx(share)
    assert verdict(record, "budget")["kind"] == "holds only if"
    assert verdict(record, "budget")["words"].startswith("it takes at most 1,6")


def test_memory_that_only_just_fits_is_tight(capsys):
    code, record = run_json(capsys, *PLAN, "--accum", "3")
    assert code == 0
    told = verdict(record, "memory")
    assert told["kind"] == "tight"
    assert "--accum 4" in told["advice"]
    assert record["fits"]
    assert record["tight"]
    # Where it may choose, it leaves the margin.
    assert run_json(capsys, *PLAN)[1]["cluster"]["accum"] == 4


def test_a_sharded_optimizer_gathers_in_fp32_and_nothing_hides_it(capsys):
    link = ("--link", "100gbit,20us")
    _, plain = run_json(capsys, *PLAN, *link)
    _, sharded = run_json(capsys, *PLAN, *link, "--set", "optim.sharded=true")
    assert plain["values"]["gather_s"] == 0
    # At least (n-1)/n of 4 bytes a parameter over the node's link.
    at_least = 7 / 8 * 4 * plain["values"]["params"] / (0.75 * 12.5e9)
    assert sharded["values"]["gather_s"] >= at_least
    # Compression of gradients does not change that.
    compressed = ("--set", "optim.sharded=true", "--set", "comm.compression=fp16")
    _, less = run_json(capsys, *PLAN, *link, *compressed)
    assert less["values"]["gather_s"] == pytest.approx(sharded["values"]["gather_s"])
    assert less["values"]["step_s"] > less["values"]["compute_s"] + less["values"]["gather_s"]
    assert sharded["values"]["efficiency"] < plain["values"]["efficiency"]
    parts = sum(
        sharded["values"][f"{part}_s"] for part in ("compute", "exposed", "gather", "waiting")
    )
    assert sharded["values"]["step_s"] == pytest.approx(parts)
    band = sharded["band"]["efficiency"]
    assert band["low"] < sharded["values"]["efficiency"] < band["high"]


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


@pytest.mark.parametrize("link", WIDE_AREA)
def test_over_a_wide_area_only_with_the_accumulation_that_is_named(capsys, link):
    code, record = run_json(capsys, *PLAN, "--link", link, "--efficiency", "85%")
    assert code == 1
    assert record["values"]["efficiency"] < 0.5
    named = int(
        re.search(r"accumulate (\d+) micro-batches", verdict(record, "efficiency")["advice"])[1]
    )
    assert record["accumulation"]["accum"] == named
    assert (
        record["accumulation"]["efficiency_low"] < 0.85 <= record["accumulation"]["efficiency_high"]
    )
    assert any("wide-area" in note and "not modelled" in note for note in record["notes"])
    assert named > 10 * record["cluster"]["accum"]

    micro_batch = record["cluster"]["micro_batch"]
    for accum, holds in ((named, True), (named - 1, False)):
        wide = [word for word in PLAN if word not in ("--global-batch", "524288 tokens")]
        wide += ["--accum", str(accum), "--global-batch", str(8 * accum * micro_batch)]
        code, record = run_json(capsys, *wide, "--link", link, "--efficiency", "85%")
        assert record["cluster"]["micro_batch"] == micro_batch
        assert (code == 0) == holds


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


def test_what_if_has_the_cheapest_that_meets_the_deadline_first(capsys):
    asked = ("--model", "xlarge", "--tokens", "100B", "--what-if", "--runs-dir", "none")
    code, record = run_json(capsys, *asked, "--deadline", "48h")
    assert code == 0
    meeting = [row for row in record["choices"] if row["meets"]]
    assert [row["on_demand_usd"] for row in meeting] == sorted(
        row["on_demand_usd"] for row in meeting
    )
    assert record["choices"][: len(meeting)] == meeting
    assert all(row["expected_s"] <= 48 * 3600 and row["fits"] for row in meeting)
    known = {"a100-40gb", "a100-80gb", "h100", "h200", "v100-16gb"}
    assert {row["gpu"] for row in record["choices"]} == known
    assert any(line.startswith("l4: --mfu") for line in record["left_out"])
    _, narrowed = run_json(capsys, *asked, "--mfu", "0.3", "--gpu", "l4")
    assert {row["gpu"] for row in narrowed["choices"]} == {"l4"}

    code, out, err = run(capsys, *asked, "--deadline", "1h", "--budget", "10", "--link", "1gbit")
    assert code == 1
    assert "--link: ignored with --what-if" in err
    assert "misses" in out
    assert "meets" not in out


def test_what_if_tries_the_exact_number_and_every_size(capsys):
    asked = ("--model", "xlarge", "--tokens", "100B", "--runs-dir", "none")
    _, swept = run_json(capsys, *asked, "--instance", "p4de.24xlarge", "--what-if",
                        "--deadline", "30h")  # fmt: skip
    sizes = {row["nodes"] for row in swept["choices"]}
    assert {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128} <= sizes
    meeting = {row["nodes"] for row in swept["choices"] if row["meets"]}
    fewest = min(meeting)
    one = ("--instance", "p4de.24xlarge", "--deadline", "30h")
    assert run_json(capsys, *asked, *one, "--gpus", str(8 * fewest))[0] == 0
    code, less = run_json(capsys, *asked, *one, "--gpus", str(8 * (fewest - 1)))
    assert code == 1
    assert less["smallest_cluster"]["nodes"] == fewest
    # Machines smaller than a provider's largest too, in more than one.
    _, small = run_json(capsys, *asked, "--gpu", "a100-40gb", "--what-if")
    counts = {row["nodes"] for row in small["choices"] if row["instance"] == "a2-highgpu-2g"}
    assert {1, 3, 16} <= counts


def test_what_if_has_the_gpus_that_gcp_attaches(capsys):
    asked = ("--model", "large", "--tokens", "10B", "--what-if", "--mfu", "0.3",
             "--runs-dir", "none")  # fmt: skip
    for gpu, count in (("v100", 8), ("t4", 4)):
        _, record = run_json(capsys, *asked, "--gpu", gpu)
        attached = [row for row in record["choices"] if row["instance"].startswith("n1-standard")]
        assert {row["gpus"] // row["nodes"] for row in attached} >= {1, 2, count}
        assert all(row["on_demand_usd"] > 0 for row in attached)
        assert record["left_out"] == []
    name = "n1-standard-64 + 8 nvidia-tesla-v100"
    _, found = run_json(capsys, *asked[:4], "--instance", name, "--runs-dir", "none")
    assert found["cluster"]["gpu"] == "v100-16gb"
    assert found["offers"][0]["machine"] == name


def test_what_if_says_rightly_why_a_gpu_is_left_out(capsys):
    asked = ("--model", "xlarge", "--tokens", "1B", "--what-if", "--runs-dir", "none")
    _, record = run_json(capsys, *asked, "--gpu", "h100", "--global-batch", "4")
    assert record["choices"] == []
    assert "the global batch of 4 sequences" in record["left_out"][0]
    _, record = run_json(capsys, *asked, "--gpu", "v100-32gb")
    assert record["left_out"] == ["v100-32gb: no machine with it has a price"]


def test_what_if_judges_a_rate_too(capsys):
    asked = ("--model", "xlarge", "--tokens", "1B", "--what-if", "--gpu", "h100",
             "--tokens-per-s", "1M", "--runs-dir", "none")  # fmt: skip
    _, record = run_json(capsys, *asked)
    assert all(row["meets"] == (row["tokens_per_s"] >= 1e6) for row in record["choices"])
    assert {row["meets"] for row in record["choices"]} == {True, False}


def test_what_if_without_any_figure_has_no_rows(capsys):
    code, record = run_json(
        capsys, "--model", "tiny", "--tokens", "1B", "--what-if", "--runs-dir", "none"
    )
    assert code == 1
    assert record["choices"] == []
    assert record["left_out"]
    code, out, _ = run(
        capsys, "--model", "tiny", "--tokens", "1B", "--what-if", "--runs-dir", "none"
    )
    assert "left out" in out


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
    """Check the words, and the numbers to 10 %: the scaling model and prices move."""
    number = r"\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?"
    words = re.split(number, piece)
    found = re.search(f"({number})".join(map(re.escape, words)), printed)
    assert found, piece
    for shown, now in zip(re.findall(number, piece), found.groups(), strict=True):
        values = [float(each.replace(",", "")) for each in (shown, now)]
        assert values[1] == pytest.approx(values[0], rel=0.1, abs=1), piece
