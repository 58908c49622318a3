"""`hpctrain estimate --what-if`: every machine and size that matters, the cheapest first."""

from estimating import run, run_json


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
