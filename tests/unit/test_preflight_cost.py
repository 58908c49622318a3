"""What a failure would have cost: hours by the estimate, money where a price is known."""

import json

import pytest
from click.testing import CliRunner
from preflight_fleets import NO_GPU, fleet, gpu_answer

from hpctrain.cli.preflight import command
from hpctrain.clusters.cloud.prices import read_prices
from hpctrain.config import parse_config
from hpctrain.preflight import price as price_module
from hpctrain.preflight.cost import (
    Price,
    Stake,
    describe_cost,
    find_gpu_of_driver,
    find_price,
    plan_stake,
)
from hpctrain.preflight.need import plan_need
from hpctrain.preflight.price import with_cost
from hpctrain.preflight.verdict import FAIL, PASS, WARN, Verdict

FAILED = [Verdict("x", PASS, "fine"), Verdict("y", FAIL, "broken", "mend it", hosts=("n1",))]
EIGHT_HOURS = Stake(devices=8, unit="GPU", duration_s=8 * 3600.0, source="hpctrain estimate, a100")
AN_HOUR = Price(usd_per_hour=23.75, what="as --usd-per-hour says")


def test_hours_and_money():
    verdict = describe_cost(FAILED, EIGHT_HOURS, AN_HOUR)
    assert (verdict.code, verdict.status, verdict.hosts) == ("cost", WARN, ())
    assert (
        "up to 64 GPU-hours, about $190 (8 GPUs for 8 h, hpctrain estimate, a100" in verdict.found
    )


def test_hours_alone_and_a_price_alone():
    found = describe_cost(FAILED, EIGHT_HOURS, None).found
    assert "up to 64 GPU-hours (8 GPUs" in found
    assert "$" not in found
    found = describe_cost(FAILED, Stake(devices=2, unit="host"), AN_HOUR).found
    assert "$23.75 an hour" in found
    assert "no estimate" in found


@pytest.mark.parametrize(
    ("verdicts", "stake", "price"),
    [
        (FAILED[:1], EIGHT_HOURS, AN_HOUR),
        ([], EIGHT_HOURS, AN_HOUR),
        (FAILED, Stake(devices=2, unit="host"), None),
    ],
)
def test_nothing_is_said_where_nothing_failed_or_nothing_is_known(verdicts, stake, price):
    assert describe_cost(verdicts, stake, price) is None


def eight(name):
    answer = gpu_answer()
    gpu = answer["gpus"][0]
    answer["gpus"] = [{**gpu, "uuid": f"GPU-{n}", "name": name} for n in range(8)]
    return answer


BIG = [
    "model.preset=large", "train.precision=bf16", "train.tokens=1000000000",
    "train.global_batch_size=256", "model.seq_len=2048",
]  # fmt: skip


def test_the_stake_is_the_whole_run_by_its_estimate():
    known = fleet(
        "gpu-states", {"n1": eight("NVIDIA A100-SXM4-40GB"), "n2": eight("NVIDIA A100-SXM4-40GB")},
        ranks=8, facts={"need": plan_need(parse_config("", overrides=BIG), 16)},
    )  # fmt: skip
    stake = plan_stake(known, known.facts["need"])
    assert (stake.devices, stake.unit) == (16, "GPU")
    assert "a100-40gb" in stake.source
    # 1e9 tokens at 6·0.76e9 FLOP and half of 16 peaks of 312e12: about half an hour.
    assert 600 < stake.duration_s < 3 * 3600


def test_a_run_without_estimate_has_no_duration():
    cpu = fleet("gpu-states", {"n1": NO_GPU, "n2": NO_GPU})
    assert plan_stake(cpu, None) == Stake(devices=2, unit="host")
    unknown = fleet("gpu-states", {"n1": eight("NVIDIA Unheard-of")}, ranks=8)
    assert plan_stake(unknown, plan_need(parse_config(""), 8)).duration_s is None
    fp32 = fleet("gpu-states", {"n1": eight("NVIDIA H200")}, ranks=8)  # nothing is published
    assert plan_stake(fp32, plan_need(parse_config(""), 8)).duration_s is None


def test_list_prices_in_a_cloud():
    known = fleet("gpu-states", {"n1": eight("NVIDIA A100-SXM4-40GB")}, ranks=8)
    found = find_price(known, "aws", read_prices())
    assert "p4d.24xlarge on aws" in found.what
    assert found.usd_per_hour == read_prices()["aws"]["machines"]["p4d.24xlarge"]
    assert find_price(known, None, read_prices()) is None
    mixed = {"n1": eight("NVIDIA A100-SXM4-40GB"), "n2": NO_GPU}
    assert find_price(fleet("gpu-states", mixed), "aws", read_prices()) is None
    assert find_gpu_of_driver("NVIDIA A100-SXM4-40GB MIG 1g.5gb") is None


def test_the_price_that_is_given_counts(monkeypatch):
    known = fleet("gpu-states", {"n1": NO_GPU})
    assert with_cost(known, FAILED, None, None, {}) == FAILED
    told = with_cost(known, FAILED, None, 12.0, {})
    assert told[:-1] == FAILED
    assert "$12.00 an hour (as --usd-per-hour says)" in told[-1].found
    assert with_cost(known, FAILED[:1], None, 12.0, {}) == FAILED[:1]


def test_the_price_of_a_cluster(monkeypatch):
    known = fleet("gpu-states", {"n1": NO_GPU})
    monkeypatch.setattr("hpctrain.clusters.overview.read_cluster", lambda *_: (None, "record"))
    monkeypatch.setattr(
        "hpctrain.bench.scaling.price.cluster_price",
        lambda record: {"value": 7.5, "what": "2 x m on aws", "as_of": "2026-01"},
    )
    told = price_module.with_cost(known, FAILED, "mine", None, {})
    assert "$7.50 an hour (2 x m on aws, as of 2026-01)" in told[-1].found


def test_the_command_ends_with_it(monkeypatch):
    known = fleet("gpu-states", {"n1": NO_GPU})
    monkeypatch.setattr("hpctrain.preflight.run.run_checks", lambda *_: (known, list(FAILED)))
    arguments = ["--usd-per-hour", "40", "--only", "cores"]
    shown = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert shown.output.splitlines()[-2].startswith("WARN  cost  what failed above would have cost")
    assert shown.return_value == 1
    as_json = CliRunner().invoke(command, [*arguments, "--json"], standalone_mode=False)
    assert [each["code"] for each in json.loads(as_json.output)] == ["x", "y", "cost"]
