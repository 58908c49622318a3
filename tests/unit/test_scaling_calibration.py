"""Where the model's numbers come from: measured runs, published tables, a plan."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from hpctrain.bench.samples import RankSteps, Sample
from hpctrain.clusters.cloud.machines import read_machines
from hpctrain.errors import BenchError, ConfigError
from hpctrain.estimate.gpus import find_gpu
from hpctrain.estimate.mfu import find_published
from hpctrain.scaling_model.calibrate import calibrate, predict_from_samples
from hpctrain.scaling_model.from_bench import choose_links, combine, merge_samples
from hpctrain.scaling_model.instances import (
    ACHIEVED,
    find_instance,
    instance_names,
    published_link,
)
from hpctrain.scaling_model.links import Link
from hpctrain.scaling_model.planned import plan_step_model, plan_transformer_buckets
from hpctrain.scaling_model.topology import Topology, allreduce_s
from hpctrain.train.presets import PRESETS, ModelSize, count_parameters

MIB = 1 << 20


def rank(number=0, *, backward_s=(0.2,) * 8, exposed_s=0.0, device="cpu"):
    steps = len(backward_s)
    return RankSteps(
        rank=number, host=f"n{number}", device=device, data_s=(0.01,) * steps,
        forward_s=(0.1,) * steps, backward_s=tuple(backward_s),
        exposed_comm_s=(exposed_s,) * steps, optimizer_s=(0.02,) * steps,
    )  # fmt: skip


def sample(*ranks, params=1_000_000, step_s=0.34, **more):
    fields = {
        "np": len(ranks), "step_time_s": (step_s,) * len(ranks[0].data_s) if ranks else (step_s,),
        "losses": (), "tokens_per_step": 64, "precision": "fp32", "params": params,
        "flops_per_token": None, "peak_flops": None, "device_name": None, "ranks": ranks,
    }  # fmt: skip
    return Sample(**{**fields, **more})


def test_one_rank_gives_the_parts_and_what_is_beside_them():
    step = calibrate(sample(rank()), bucket_mb=1.0)
    assert (step.data_s, step.forward_s, step.backward_s) == (0.01, 0.1, 0.2)
    assert step.optimizer_s == pytest.approx(0.03)  # 0.34 s are 0.01 more than the parts
    assert step.alone_s == pytest.approx(0.34)
    assert step.exchanged_bytes == pytest.approx(4e6)
    assert len(step.buckets) == 4
    assert (step.jitter_cv, step.slowdown, step.cycle_s) == (0.0, 0.0, 1e-3)


def test_two_ranks_give_jitter_and_what_the_exchange_costs():
    two = sample(rank(0, backward_s=(0.22, 0.24) * 4), rank(1, backward_s=(0.24, 0.22) * 4))
    step = calibrate(sample(rank()), two)
    assert step.slowdown == pytest.approx(0.33 / 0.3 - 1)
    assert step.jitter_cv == pytest.approx(0.02 / 2**0.5 / 0.33)
    assert "8 of two" in step.source


def test_compression_halves_what_travels_and_accumulation_splits_the_computing():
    step = calibrate(sample(rank()), compression="fp16", accum=2)
    assert step.exchanged_bytes == pytest.approx(2e6)
    assert (step.forward_s, step.backward_s, step.accum) == (0.05, 0.1, 2)
    assert step.alone_s == pytest.approx(0.34)


def test_ddp_does_not_negotiate():
    step = calibrate(sample(rank()), backend="ddp")
    assert (step.negotiates, step.cycle_s) == (False, 0.0)


def test_horovods_cycle_is_the_trainers():
    """As train.comm_horovod.choose_cycle_ms: 33 GFLOP a step on a core is 10 ms, 1 GFLOP 1 ms."""
    for flops, cycle_s in ((33e9 / 64, 10e-3), (1e9 / 64, 1e-3), (10e9 / 64, 5e-3)):
        assert calibrate(sample(rank(), flops_per_token=flops)).cycle_s == pytest.approx(cycle_s)


@pytest.mark.parametrize("broken", [sample(), sample(rank(), params=None)])
def test_samples_that_say_too_little(broken):
    with pytest.raises(BenchError, match="calibrate: "):
        calibrate(broken)


def test_predictions_straight_from_samples():
    wire = Link(1e-4, 1e8)
    found = predict_from_samples(
        sample(rank()), None, (wire, None), [(1, 1), (2, 1), (4, 1)], bucket_mb=1.0
    )
    assert [p.ranks for p in found] == [1, 2, 4]
    assert found[0].step_s == pytest.approx(0.34)
    assert found[0].step_s < found[1].step_s < found[2].step_s
    with pytest.raises(BenchError, match="no link within nodes is known"):
        predict_from_samples(sample(rank()), None, (wire, None), [(1, 2)])


def test_gpus_are_predicted_by_nccl_and_cpus_by_open_mpi():
    wire = Link(1e-4, 1e8)
    by = {
        device: predict_from_samples(sample(rank(device=device)), None, (wire, wire), [(3, 1)])[0]
        for device in ("cpu", "cuda:0")
    }
    assert by["cpu"].comm_s > 2 * by["cuda:0"].comm_s  # three ranks: docs/prediction.md


@pytest.mark.parametrize("name", instance_names())
def test_every_machine_has_a_source_and_figures_that_can_be(name):
    machine = find_instance(name)
    assert machine.source
    assert "20" in machine.source.rpartition("as of ")[2]
    assert 1 <= machine.gpus <= 16
    assert find_gpu(machine.gpu)
    assert 1 <= machine.line_gbit <= 4000
    assert machine.link.bandwidth_bytes_per_s == machine.line_gbit * 1e9 / 8 * ACHIEVED
    assert machine.intra.latency_s < machine.link.latency_s < 1e-3
    assert machine.provider in ("aws", "gcp")
    if machine.flow_gbit is not None:
        assert machine.flow_gbit <= min(10, machine.line_gbit)
    assert (machine.flow_gbit is not None) == (machine.provider == "aws")


@pytest.mark.parametrize(
    ("name", "gbit", "gpus"),
    [
        ("p3.16xlarge", 25, 8), ("p3dn.24xlarge", 100, 8), ("p4d.24xlarge", 400, 8),
        ("p4de.24xlarge", 400, 8), ("p5.48xlarge", 3200, 8), ("g4dn.xlarge", 5, 1),
        ("g5.12xlarge", 40, 4), ("g6.48xlarge", 100, 8), ("a3-highgpu-8g", 1000, 8),
        ("a3-megagpu-8g", 1800, 8), ("a3-ultragpu-8g", 3600, 8), ("a2-ultragpu-8g", 100, 8),
    ],
)  # fmt: skip
def test_what_vendors_publish(name, gbit, gpus):
    machine = find_instance(name.upper())
    assert (machine.line_gbit, machine.gpus) == (gbit, gpus)


@pytest.mark.parametrize("name", instance_names())
def test_both_tables_of_networks_agree_or_say_why_not(name):
    """Ours has what can be had; machines.csv what the Terraform modules' machines have."""
    machine = find_instance(name)
    rented = read_machines().get((machine.provider, name))
    if rented is None:
        return
    assert rented.network_gbps == (machine.plain_gbit or machine.line_gbit)
    if machine.plain_gbit is not None:
        assert f"with {machine.needs}, else {machine.plain_gbit:g}" in machine.link.source


def test_the_highest_rates_of_gcp_are_named_with_what_they_need():
    assert find_instance("a3-highgpu-8g").needs == "GPUDirect-TCPX"
    assert find_instance("a3-megagpu-8g").needs == "GPUDirect-TCPXO"
    assert find_instance("p4d.24xlarge").needs is None


def test_an_unknown_machine_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"Did you mean 'p4d.24xlarge'\?.*--link"):
        find_instance("p4d.24xlrge")


@pytest.mark.parametrize(("nodes", "ms"), [(1, 8.14), (2, 35.2), (3, 64.8), (4, 70.3)])
def test_published_all_reduces_lie_in_the_band_of_a_published_link(nodes, ms):
    """1 GiB on p4d: every row of the table in NVIDIA/nccl issue 527."""
    machine = find_instance("p4d.24xlarge")
    topology = Topology(nodes, machine.gpus, machine.link, machine.intra)
    factor = 1 + machine.link.error
    quick, slow = (allreduce_s(2.0**30, topology.scaled(f)).total_s for f in (factor, 1 / factor))
    assert quick <= ms / 1e3 <= slow
    assert allreduce_s(2.0**30, topology).total_s == pytest.approx(ms / 1e3, rel=0.25)


def test_the_band_of_a_published_link_holds_what_was_reported():
    """Least and most of the line rate that is reported for nccl-tests, see ACHIEVED."""
    link = published_link(14e-6, 400, "test")
    factor = 1 + link.error
    least, most = (link.scaled(f).bandwidth_bytes_per_s / 50e9 for f in (1 / factor, factor))
    assert 0.55 < least <= 0.592
    assert 0.96 <= most < 1.0


@pytest.mark.parametrize("preset", PRESETS)
def test_planned_buckets_hold_the_whole_model(preset):
    size = ModelSize(**PRESETS[preset], position="rope")
    buckets = plan_transformer_buckets(size, 25.0)
    total = sum(bucket.bytes_ for bucket in buckets)
    assert total == pytest.approx(4 * count_parameters(size), rel=0.003)  # but for the norms
    ready = [bucket.ready_fraction for bucket in buckets]
    assert ready == sorted(ready)
    assert ready[-1] == pytest.approx(1.0)


def test_a_planned_step_computes_its_flops():
    size = ModelSize(**PRESETS["xlarge"], position="learned")
    step = plan_step_model(size, gpu="a100-80gb", mfu=0.5, sequences=4)
    flops = 4 * 2048 * (6 * (count_parameters(size) - 2048 * 2048) + 12 * 24 * 2048 * 2048)
    assert step.alone_s == pytest.approx(flops / (312e12 * 0.5))
    assert step.backward_s == pytest.approx(2 * step.forward_s)
    published = plan_step_model(size, gpu="a100", sequences=4)
    assert published.alone_s == pytest.approx(flops / (312e12 * 0.599), rel=1e-3)
    assert "llm-foundry" in published.source


@pytest.mark.parametrize(("gpu", "precision"), [("h200", "bf16"), ("v100", "fp16")])
def test_a_planned_step_has_the_mfu_that_an_estimate_has(gpu, precision):
    size = ModelSize(**PRESETS["xlarge"], position="learned")
    figure = find_published(find_gpu(gpu), count_parameters(size), precision)
    given = plan_step_model(size, gpu=gpu, precision=precision, mfu=figure.value)
    published = plan_step_model(size, gpu=gpu, precision=precision)
    assert published.alone_s == pytest.approx(given.alone_s)
    assert figure.source in published.source


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"gpu": "a1000"}, "--gpu: unknown"),
        ({"gpu": "a100-xyz"}, "--gpu: unknown"),
        ({"gpu": "h100-pcie"}, "--gpu: unknown"),  # it has another peak than the one we know
        ({"gpu": "t4", "precision": "bf16"}, "t4 has no such units.*train.precision=fp16"),
        ({"gpu": "l4"}, "--mfu: nothing is published .* on l4"),
        ({"gpu": "a100", "mfu": 1.5}, "--mfu: out of range"),
    ],
)
def test_steps_that_cannot_be_planned(how, words):
    with pytest.raises(ConfigError, match=words):
        plan_step_model(ModelSize(**PRESETS["small"], position="rope"), **how)


def test_repeats_are_taken_together():
    merged = merge_samples([sample(rank()), sample(rank(backward_s=(0.3,) * 4))])
    assert len(merged.step_time_s) == len(merged.ranks[0].backward_s) == 12


def test_a_measured_folder_gives_step_and_ranks():
    samples = {(1, 1): [sample(rank())], (4, 2): [sample(*(rank(k) for k in range(4)))]}
    config = {"comm": {"bucket_mb": 1.0, "compression": "fp16"}, "train": {"grad_accum_steps": 2}}
    found = combine(samples, config, {})
    assert found.ranks_per_node == 2
    assert found.algorithm == "openmpi"
    assert (found.inter, found.intra, found.compression) == (None, None, "fp16")
    assert found.step.accum == 2
    assert found.step.exchanged_bytes == pytest.approx(2e6)
    gpu = {(1, 1): [replace(sample(rank(device="cuda:0")))]}
    assert combine(gpu, {}, {}).algorithm == "nccl"


def test_links_are_taken_where_they_show_best(monkeypatch):
    fits = SimpleNamespace(fit_links=lambda r: {"torch": SimpleNamespace(link=(r.n, r.nodes))})
    monkeypatch.setitem(__import__("sys").modules, "hpctrain.bench.allreduce.results", fits)
    results = [SimpleNamespace(n=n, nodes=k) for n, k in ((4, 2), (3, 3), (2, 2), (4, 1), (2, 1))]
    assert choose_links(results) == ((2, 2), (2, 1))
    assert choose_links(results[:1]) == ((4, 2), None)
    assert choose_links([]) == (None, None)
