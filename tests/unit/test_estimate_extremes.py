"""What nobody means: numbers without end, batches that cannot be cut, clusters that are free."""

import pytest
from estimating import run, run_json

NINES = "9" * 400
SOUND = ("--model", "xlarge", "--tokens", "1B", "--gpu", "a100-80gb", "--gpus", "8",
         "--runs-dir", "none")  # fmt: skip


def test_numbers_without_end_are_told_all_at_once(capsys):
    code, out, err = run(
        capsys, "--model", "xlarge", "--tokens", "1e999", "--gpu", "a100", "--gpus", NINES,
        "--gpus-per-node", NINES, "--accum", NINES, "--link", f"100gbit,{NINES}us",
        "--intra-link", f"{NINES}gbit,1us", "--deadline", f"{NINES}h", "--budget", NINES,
        "--tokens-per-s", NINES, "--efficiency", NINES, "--mfu", NINES, "--storage",
        f"{NINES}gbyte", "--usd-per-gpu-hour", NINES, "--runs-dir", "none",
    )  # fmt: skip
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    for option in ("--tokens", "--gpus", "--gpus-per-node", "--accum", "--link", "--intra-link",
                   "--deadline", "--budget", "--tokens-per-s", "--efficiency", "--mfu",
                   "--storage", "--usd-per-gpu-hour"):  # fmt: skip
        (told,) = [line for line in lines if line.startswith(f"error: {option}:")]
        assert ", got " in told
        assert "; expected " in told
        assert len(told) < 250


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--global-batch", "8", "--accum", "5"),
         "--accum: a GPU has fewer sequences a step, got 5 for 1"),
        (("--set", "comm.backend=none"), "comm.backend: nothing is exchanged, so 8 GPUs train 8"),
        (("--set", "comm.backend=none", "--what-if"), "comm.backend: nothing is exchanged"),
        (("--what-if", "--accum", NINES), "--accum: too large"),
        (("--usd-per-gpu-hour", "-1"),
         "--usd-per-gpu-hour: no sum, got '-1'; expected US dollars, 0 or more"),
        (("--budget", "0"), "--budget: no sum"),
        (("--mfu", "0.00000001"), "--mfu: no share"),
        (("--link", "0.000001bit"), "--link: no network has such a bandwidth"),
    ],
)  # fmt: skip
def test_what_cannot_be(capsys, arguments, words):
    code, out, err = run(capsys, *SOUND, *arguments)
    assert code == 2
    assert out == ""
    assert words in err
    assert ", got " in err
    assert "; expected " in err


def test_a_configuration_may_have_more_micro_batches_than_sequences(capsys):
    """The trainer leaves the empty ones out, so does the estimate."""
    _, record = run_json(
        capsys, *SOUND, "--global-batch", "8", "--set", "train.grad_accum_steps=5"
    )  # fmt: skip
    assert record["cluster"]["accum"] == 1


def test_one_gpu_has_nobody_to_exchange_with(capsys):
    one = [*SOUND[:-3], "1", *SOUND[-2:]]
    code, record = run_json(capsys, *one, "--set", "comm.backend=none")
    assert code == 0
    assert record["values"]["exposed_s"] == 0


def test_a_cluster_may_be_free(capsys):
    code, record = run_json(capsys, *SOUND, "--usd-per-gpu-hour", "0", "--budget", "1")
    assert code == 0
    assert record["values"]["own_usd"] == 0
    assert record["band"]["usd"] == {"low": 0, "expected": 0, "high": 0}
    # One that fails faster than it saves, too.
    endless = [*SOUND[:-3], "1000000", *SOUND[-2:], "--storage", "10mbyte"]
    code, record = run_json(capsys, *endless, "--usd-per-gpu-hour", "0")
    assert code == 1
    assert record["values"]["own_usd"] == 0


def test_the_largest_that_is_taken_is_answered(capsys):
    for more in (("--global-batch", "1e12"), ("--accum", "1000000", "--global-batch", "1e9")):
        code, record = run_json(capsys, *SOUND, *more)
        assert code in (0, 1)
        assert record["values"]["step_s"] > 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('[aws.machines]\n"p4d.24xlarge" = ' + "9" * 300,
         "aws.machines.p4d.24xlarge: no price, got 999"),
        ('[aws.machines]\n"p4d.24xlarge" = "22"', "aws.machines.p4d.24xlarge: no price, got '22'"),
        ('[gcp.machines]\n"a2-highgpu-1g" = -3', "gcp.machines.a2-highgpu-1g: no price, got -3"),
        ('[aws.machines]\n"p4d.24xlarge" = nan', "no price, got nan"),
        ('[aws.spot."p4d.24xlarge"]\nusd_per_hour = 7', "with as_of and source"),
        ("[gcp]\nmachines = 5", "gcp.machines: no table, got 5"),
    ],
)  # fmt: skip
def test_prices_that_are_none(capsys, tmp_path, line, words):
    path = tmp_path / "prices.toml"
    path.write_text(f'as_of = "2031-01"\n{line}\n')
    code, _, err = run(capsys, *SOUND, "--prices", str(path))
    assert code == 2
    assert words in err
    assert str(path) in err
