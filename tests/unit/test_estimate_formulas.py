"""What the estimate's formulas must keep, and what has been published and must come out again."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.clusters.cloud.machines import read_machines
from hpctrain.clusters.cloud.prices import read_prices
from hpctrain.config.schema import ModelConfig
from hpctrain.estimate.asked import Asked
from hpctrain.estimate.goodput import FAILURE_GPU_HOURS, plan_checkpoints
from hpctrain.estimate.gpus import find_gpu, gpu_names, read_gpus
from hpctrain.estimate.load import RankLoad
from hpctrain.estimate.measured import Wanted, choose_mfu
from hpctrain.estimate.memory import estimate_memory
from hpctrain.estimate.mfu import TABLE, MfuFigure, find_published
from hpctrain.estimate.money import find_offers
from hpctrain.estimate.nodes import find_node_kind, node_kind_names, plan_cluster
from hpctrain.estimate.plan import Assumptions, plan_estimate
from hpctrain.estimate.request import resolve_request
from hpctrain.estimate.smallest import Goals, find_smallest
from hpctrain.estimate.speed import Job, accumulation_for, with_accumulation
from hpctrain.gpu_peaks import find_peak
from hpctrain.train.presets import PRESETS, count_parameters, resolve_model

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

PRICES = read_prices()
FEW = settings(max_examples=40)


def model(preset="xlarge", **changes):
    return resolve_model(ModelConfig(preset=preset, **changes))


def job(**changes):
    plain = Job(
        size=model(), tokens=10**11, precision="bf16", global_sequences=None, rank_sequences=8,
        accum=1, recomputes=False, sharded=False, compression="none", bucket_mb=25.0,
    )  # fmt: skip
    return replace(plain, **changes)


def estimate(asked_job=None, *, gpu="a100-80gb", gpus=8, per_node=8, link=None, mfu=0.5, **more):
    cluster = plan_cluster(find_gpu(gpu), gpus, per_node, None, link)
    figure = MfuFigure(value=mfu, kind="given", source="a test")
    assumptions = Assumptions(mfu=figure, prices=PRICES, **more)
    return plan_estimate(asked_job or job(), cluster, assumptions)


# --- more is never less


@FEW
@given(st.integers(10**6, 10**12), st.integers(0, 10**11), st.sampled_from([1, 2, 8, 64]))
def test_more_tokens_are_never_cheaper_or_quicker(tokens, more, gpus):
    less = estimate(job(tokens=tokens), gpus=gpus, per_node=min(8, gpus))
    greater = estimate(job(tokens=tokens + more), gpus=gpus, per_node=min(8, gpus))
    assert greater.expected_s >= less.expected_s
    assert greater.usd >= less.usd
    assert greater.gpu_hours >= less.gpu_hours


@FEW
@given(st.sampled_from(["1gbit,20ms", "10gbit,1ms", "100gbit,20us"]), st.integers(1, 64),
       st.floats(0.05, 1.0))  # fmt: skip
def test_no_cluster_is_faster_than_its_ceiling(link, nodes, mfu):
    found = estimate(gpus=nodes * 4, per_node=4, link=link, mfu=mfu)
    assert 0 < found.speed.efficiency <= 1
    assert found.speed.tokens_per_s <= found.speed.ceiling_tokens_per_s * mfu * (1 + 1e-9)
    assert found.ceiling_s <= found.training_s <= found.expected_s


@FEW
@given(st.sampled_from(sorted(PRESETS)), st.integers(1, 32), st.booleans(), st.booleans(),
       st.sampled_from(["fp32", "bf16"]),
       st.sampled_from(["learned", "rope", "sinusoidal"]))  # fmt: skip
def test_memory_grows_with_work_and_shrinks_with_what_saves_it(
    preset, batch, recomputes, sharded, precision, position
):
    size = model(preset, position=position)
    load = RankLoad(
        micro_batch=batch, sequences=batch, ranks=8, precision=precision, recomputes=recomputes,
        sharded=sharded,
    )  # fmt: skip
    peak = estimate_memory(size, load).peak_bytes
    assert peak >= (12 if sharded else 16) * count_parameters(size) * 0.6
    assert estimate_memory(size, replace(load, micro_batch=batch + 1)).peak_bytes >= peak
    assert estimate_memory(size, replace(load, recomputes=True)).peak_bytes <= peak * 1.0001
    deeper = replace_layers(size)
    assert estimate_memory(deeper, load).peak_bytes > peak


def replace_layers(size):
    return replace(size, num_layers=size.num_layers + 1)


@FEW
@given(st.integers(1, 20000), st.floats(1e8, 1e12), st.floats(1e8, 1e11))
def test_goodput_falls_with_gpus_and_the_interval_leaves_time_to_write(gpus, size, storage):
    rates = {"to_host_bytes_per_s": 24e9, "storage_bytes_per_s": storage}
    plan = plan_checkpoints(size, gpus, **rates)
    assert 0 <= plan.share < 1
    assert plan.interval_s >= plan.write_s
    young_s = (2 * plan.stall_s * plan.failure_s) ** 0.5
    assert plan.interval_s == pytest.approx(max(young_s, plan.write_s))
    assert plan_checkpoints(size, 2 * gpus, **rates).share <= plan.share


@FEW
@given(st.sampled_from(["1gbit,20ms", "10gbit,5ms", "25gbit,50us"]), st.integers(2, 16),
       st.floats(0.3, 0.97))  # fmt: skip
def test_the_accumulation_that_is_named_reaches_the_efficiency(link, nodes, efficiency):
    found = estimate(gpus=2 * nodes, per_node=2, link=link)
    mfu = found.assumptions.mfu
    accum = accumulation_for(found.job, found.cluster, mfu, efficiency)
    reached = estimate(
        with_accumulation(found.job, found.cluster, accum), gpus=2 * nodes, per_node=2, link=link
    )
    assert reached.speed.efficiency >= efficiency - 1e-9
    if accum > 1:
        fewer = with_accumulation(found.job, found.cluster, accum - 1)
        missed = estimate(fewer, gpus=2 * nodes, per_node=2, link=link)
        assert missed.speed.efficiency < efficiency


@settings(max_examples=15)
@given(st.floats(20, 400), st.sampled_from(["100gbit,20us", "10gbit,50us"]), st.booleans())
def test_one_node_less_than_the_smallest_cluster_does_not_do(hours, link, fixed_batch):
    asked = job(global_sequences=512 if fixed_batch else None)
    found = estimate(asked, gpus=4, per_node=4, link=link)
    goals = Goals(deadline_s=hours * 3600)
    smallest, words = find_smallest(found, goals)
    if smallest is None:
        assert words.startswith("none")
        return
    assert smallest.expected_s <= goals.deadline_s
    gpus = smallest.cluster.gpus - 4
    if gpus and smallest.fits:
        micro_batch = found.job.load(4).micro_batch
        accum = -(-asked.sequences_per_rank(gpus) // micro_batch)
        less = estimate(replace(asked, accum=accum), gpus=gpus, per_node=4, link=link)
        # One that fits without a margin alone is not advised.
        assert not less.fits or less.tight or less.expected_s > goals.deadline_s


def test_where_the_exchange_costs_a_larger_batch_is_more_efficient():
    shares = [
        estimate(job(rank_sequences=8 * accum, accum=accum), gpus=8, per_node=2,
                 link="10gbit,1ms").speed.efficiency
        for accum in (1, 2, 4, 8, 16)
    ]  # fmt: skip
    assert shares == sorted(shares)
    assert shares[-1] > 2 * shares[0]


def test_fp16_compression_helps_a_slow_link():
    plain, compressed = (
        estimate(job(compression=name), gpus=8, per_node=2, link="10gbit,100us").speed.efficiency
        for name in ("none", "fp16")
    )
    assert compressed > 1.2 * plain


# --- published numbers


@pytest.mark.parametrize(
    ("gpu", "params", "mfu", "tokens_per_s"),
    [("a100-80gb", 1_315_950_592, 0.5986, 164109), ("a100-40gb", 1_315_950_592, 0.5623, 154171),
     ("h100", 1_315_950_592, 0.4182, 363645)],
)  # fmt: skip
def test_llm_foundry_tokens_per_s_come_out_of_its_mfu(gpu, params, mfu, tokens_per_s):
    # Its 1B model: 24 layers, d 2048, learned positions of 2048 tokens, vocabulary 50368.
    size = model(vocab_size=50368)
    assert count_parameters(size) == pytest.approx(params, rel=1e-3)
    asked = job(size=size, rank_sequences=64, accum=4)
    found = estimate(asked, gpu=gpu, mfu=mfu)
    # On one node of 8 hardly anything of the exchange shows.
    assert found.speed.tokens_per_s == pytest.approx(tokens_per_s, rel=0.03)


def test_published_figures_are_met_exactly_and_interpolated_between():
    a100 = find_gpu("a100-80gb")
    for params, mfu in ((125_311_488, 0.4479), (760_470_528, 0.5685), (1_315_950_592, 0.5986)):
        assert find_published(a100, params, "bf16").value == pytest.approx(mfu)
    assert 0.4479 < find_published(a100, 200_000_000, "bf16").value < 0.5162
    assert find_published(a100, 20_000_000, "bf16") is None
    assert find_published(a100, 1_315_950_592, "fp32") is None
    lower = find_published(find_gpu("h200"), 1_315_950_592, "bf16")
    assert lower.value == pytest.approx(0.4236)
    assert "for the h100: a lower bound" in lower.source
    assert find_published(find_gpu("b200"), 1_315_950_592, "bf16") is None


def test_beyond_the_published_sizes_no_figure_is_better_than_the_published_ones():
    h100, a100 = find_gpu("h100"), find_gpu("a100-80gb")
    # 13B without activation checkpointing: lower than 7B on either.
    assert find_published(h100, 12_853_954_560, "bf16").value == pytest.approx(0.3979)
    assert find_published(a100, 12_853_954_560, "bf16").value == pytest.approx(0.5957)
    larger = find_published(h100, 20_000_000_000, "bf16")
    assert larger.value == pytest.approx(0.3979)
    assert larger.far
    assert "none so large" in larger.source
    smaller = find_published(h100, 400_000_000, "bf16")
    assert smaller.value < 0.3789
    assert smaller.far
    assert "none so small" in smaller.source


def test_published_rows_are_of_8_gpus_but_those_that_the_header_names():
    text = TABLE.read_text()
    table = tomllib.loads(text)
    others = {
        (figure["gpu"], figure["seq_len"], row[0], row[2])
        for source in table["source"] for figure in source["figure"] for row in figure["rows"]
        if row[2] != 8
    }  # fmt: skip
    assert others == {
        ("h100", 2048, 760_470_528, 16), ("h100", 2048, 1_315_950_592, 16),
        ("h100", 2048, 2_651_837_440, 16), ("v100-32gb", 1024, 1_200_000_000, 1),
    }  # fmt: skip
    for source in table["source"]:
        for figure in source["figure"]:
            sizes = [row[0] for row in figure["rows"]]
            assert sizes == sorted(set(sizes))
            assert all(0.2 < row[1] < 0.7 for row in figure["rows"])
            pure = figure["gpu"] == "a100-40gb"
            assert figure["numbers"] == ("pure bf16" if pure else "mixed")


def test_the_line_says_what_a_published_figure_was_published_for():
    a100 = find_gpu("a100-80gb")
    short = find_published(a100, 758_897_664, "bf16", 1024)
    assert short.value == pytest.approx(0.4776)
    assert "1024 tokens a sequence" in short.source
    other = find_published(a100, 1_315_950_592, "bf16", 2500)
    assert "2048 tokens a sequence, not 2500 as here" in other.source
    assert other.far
    assert other.error > find_published(a100, 1_315_950_592, "bf16").error
    h100 = find_published(find_gpu("h100"), 760_470_528, "bf16")
    assert "on 16 GPU(s) 37.9%, their exchange included" in h100.source
    assert "pure bf16" in find_published(find_gpu("a100-40gb"), 760_470_528, "bf16").source
    assert "mixed" in h100.source


def test_the_interval_in_steps_is_never_shorter_than_a_write():
    # Steps of about 4 s, a write of 15.8 s over a slow disk: rounding alone would take too few.
    for rate in (1.1e9, 1.0e9, 3e8, 1e8, 2.3e7, 1e7):
        found = estimate(gpus=2048, per_node=8, storage_bytes_per_s=rate)
        assert found.interval_steps * found.speed.step_s >= found.goodput.write_s
    assert found.goodput.bound_by_write


def test_llama_3_failures():
    assert round(FAILURE_GPU_HOURS) == 50677
    plan = plan_checkpoints(1e12, 16384, to_host_bytes_per_s=48e9, storage_bytes_per_s=1e11)
    assert plan.failure_s / 3600 == pytest.approx(54 * 24 / 419)
    assert plan.share > 0.9  # "more than 90 % effective training time", section 3.3.4


def test_activation_checkpointing_costs_a_third_more_time():
    plain, again = (estimate(job(recomputes=each)) for each in (False, True))
    assert again.speed.compute_s == pytest.approx(4 / 3 * plain.speed.compute_s)
    measured_so = MfuFigure(value=0.5, kind="measured", source="a test", recomputed=True)
    cluster = plain.cluster
    same = plan_estimate(job(recomputes=True), cluster, Assumptions(mfu=measured_so, prices=PRICES))
    assert same.speed.compute_s == pytest.approx(plain.speed.compute_s)


# --- tables


@pytest.mark.parametrize("name", sorted(read_gpus()))
def test_every_gpu_is_whole(name):
    gpu = read_gpus()[name]
    assert find_peak(gpu.device) is not None
    assert gpu.peak_flops(gpu.best_precision) > gpu.peak_flops("fp32")
    assert gpu.memory_bytes > 14 * 2**30
    if gpu.achievable_flops is not None:
        assert gpu.achievable_flops < gpu.peak_flops(gpu.best_precision)
    assert gpu.like is None or gpu.like in read_gpus()
    assert {name, name.upper()} <= {name.upper(), *gpu_names()}


def test_every_machine_is_a_kind_of_node():
    for name in node_kind_names():
        kind = find_node_kind(name)
        assert kind.gpus >= 1
        assert kind.inter.bandwidth_bytes_per_s > 0
    tables = {machine for (_, machine), facts in read_machines().items()}
    assert tables <= set(node_kind_names())


def test_spot_is_cheaper_and_every_price_has_a_date_and_source():
    for provider in ("aws", "gcp"):
        for machine, spot in PRICES[provider]["spot"].items():
            assert spot["usd_per_hour"] < PRICES[provider]["machines"][machine]
            assert spot["as_of"]
            assert spot["source"]
        assert set(PRICES[provider]["seen"]) <= set(PRICES[provider]["machines"])
        assert PRICES[provider]["spot_words"]


def test_offers_are_machines_of_the_size_that_was_asked():
    a100 = find_gpu("a100-40gb")
    aws, gcp = find_offers(PRICES, a100, 2, 8)
    assert (aws.machine, aws.machines) == ("p4d.24xlarge", 2)
    assert (gcp.machine, gcp.machines) == ("a2-highgpu-8g", 2)
    assert aws.on_demand_usd(10) == pytest.approx(2 * 21.958 * 10)
    assert aws.spot_usd(10) is None
    assert gcp.spot_usd_per_hour is None  # known for one and two GPUs alone
    only = find_offers(PRICES, a100, 1, 8, "a2-highgpu-8g")
    assert [offer.provider for offer in only] == ["gcp"]
    # Half a rented machine is paid for whole.
    (half,) = find_offers(PRICES, a100, 4, 2, "p4d.24xlarge")
    assert half.machines == 4
    assert not half.other_shape


def test_nodes_of_another_shape_are_an_alternative_that_counts_for_nothing():
    same, other = find_offers(PRICES, find_gpu("a100-40gb"), 4, 2)
    assert (same.machine, same.machines, same.other_shape) == ("a2-highgpu-2g", 4, False)
    assert same.spot_usd(1) == pytest.approx(4 * 2.587)
    assert (other.machine, other.machines, other.other_shape) == ("p4d.24xlarge", 1, True)
    # Though the other be cheaper, and though nothing else be there.
    found = estimate(gpus=8, per_node=2)
    assert found.usd == found.offers[0].on_demand_usd(found.expected_s / 3600)
    assert found.offers[0].machine == "a2-ultragpu-2g"
    lone = estimate(gpus=4, per_node=4, gpu="h100")
    assert lone.usd is None
    assert all(offer.other_shape for offer in lone.offers)


def test_gpus_that_are_attached_are_priced_as_nodes_of_that_many():
    v100 = find_gpu("v100")
    (eight,) = find_offers(PRICES, v100, 1, 8)
    assert (eight.machine, eight.machines) == ("n1-standard-64 + 8 nvidia-tesla-v100", 1)
    assert eight.on_demand_usd(1) == pytest.approx(3.04 + 8 * 2.48)
    t4 = find_offers(PRICES, find_gpu("t4"), 2, 1)
    assert any(offer.machine == "n1-standard-8 + 1 nvidia-tesla-t4" for offer in t4)


def test_an_unknown_precision_of_a_gpu_and_runs_that_are_not_there(tmp_path):
    wanted = Wanted(
        gpu=find_gpu("l4"), params=1_300_000_000, precision="bf16", seq_len=2048, compiled=False
    )
    assert choose_mfu(wanted, tmp_path / "none") is None
    asked = Asked(model="xlarge", tokens="1B", gpu="v100", gpus=8)
    request = resolve_request(asked)
    assert request.job.precision == "fp16"
    assert request.assumptions.mfu.value == 0.30
