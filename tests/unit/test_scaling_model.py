"""The model that predicts: laws that hold for any numbers, and figures worked out by hand."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.errors import ConfigError, PlanError
from hpctrain.scaling_model.collectives import FLAT_ALGORITHMS, choose_open_mpi, rounds
from hpctrain.scaling_model.counts import parse_counts
from hpctrain.scaling_model.jitter import expected_maximum, jitter_of
from hpctrain.scaling_model.links import Link, fit_allreduce, parse_link
from hpctrain.scaling_model.overlap import simulate_overlap
from hpctrain.scaling_model.predict import predict_curve, predict_parts, predict_step
from hpctrain.scaling_model.step import BucketModel, StepModel, plan_bucket_models
from hpctrain.scaling_model.topology import ALGORITHMS, Topology, allreduce_s

latencies = st.floats(0.0, 0.01)
bandwidths = st.floats(1e6, 1e12)
links = st.builds(Link, latencies, bandwidths)
factors = st.floats(1.0, 100.0)
topologies = st.builds(
    Topology, st.integers(1, 300), st.integers(1, 16), links, links, st.sampled_from(ALGORITHMS)
)
buckets = st.lists(
    st.builds(BucketModel, st.floats(0.0, 1e9), st.floats(0.01, 1.0)), min_size=1, max_size=8
).map(lambda values: tuple(sorted(values, key=lambda bucket: bucket.ready_fraction)))
times = st.floats(1e-3, 10.0)
steps = st.builds(StepModel, times, times, times, times, buckets, st.floats(0.0, 0.2))
ALMOST = 1 + 1e-9


def with_links(topology, **changes):
    return replace(
        topology,
        inter=replace(topology.inter, **{k: f(topology.inter) for k, f in changes.items()}),
        intra=replace(topology.intra, **{k: f(topology.intra) for k, f in changes.items()}),
    )


def saved_in_rounds_s(step, topology):
    """What buckets save at most by coming right behind others, which is a matter of moments.

    A better link can end one exchange before the next bucket is ready, which then saves nothing.
    """
    return sum(allreduce_s(bucket.bytes_, topology).at_start_s for bucket in step.buckets[1:])


@given(steps, topologies, factors)
def test_more_bandwidth_is_never_slower(step, topology, factor):
    faster = with_links(
        topology, bandwidth_bytes_per_s=lambda link: link.bandwidth_bytes_per_s * factor
    )
    most_s = predict_parts(step, topology).step_s + saved_in_rounds_s(step, topology)
    assert predict_parts(step, faster).step_s <= most_s * ALMOST


@given(steps, topologies, factors)
def test_more_latency_is_never_faster(step, topology, factor):
    later = with_links(topology, latency_s=lambda link: link.latency_s * factor)
    most_s = predict_parts(step, later).step_s + saved_in_rounds_s(step, later)
    assert predict_parts(step, topology).step_s <= most_s * ALMOST


@given(steps, topologies, factors)
def test_one_exchange_is_never_faster_over_a_later_link(step, topology, factor):
    later = with_links(topology, latency_s=lambda link: link.latency_s * factor)
    alone = replace(step, buckets=step.buckets[-1:])
    assert predict_parts(alone, later).step_s * ALMOST >= predict_parts(alone, topology).step_s


@given(steps, links)
def test_one_rank_has_nobody_to_wait_for(step, link):
    alone = predict_step(step, Topology(1, 1, link, link))
    assert alone.step_s == step.alone_s
    assert (alone.exposed_comm_s, alone.waiting_s, alone.comm_s) == (0.0, 0.0, 0.0)
    assert alone.efficiency == 1.0


@given(steps, topologies)
def test_what_is_exposed_is_at_most_all_that_is_exchanged(step, topology):
    parts = predict_parts(step, topology)
    late_s = (1 - step.buckets[-1].ready_fraction) * step.backward_s
    assert 0.0 <= parts.exposed_comm_s <= max(0.0, parts.comm_s * ALMOST - late_s + 1e-9) + late_s
    assert parts.exposed_comm_s >= 0.0
    last_s = allreduce_s(step.buckets[-1].bytes_, topology).total_s
    assert parts.exposed_comm_s * ALMOST + 1e-12 >= last_s - late_s


@given(st.floats(1.0, 1e9), st.integers(2, 64), st.integers(2, 16), links, links)
def test_hierarchical_lies_between_its_larger_stage_and_their_sum(bytes_, k, g, inter, intra):
    time = allreduce_s(bytes_, Topology(k, g, inter, intra, "hierarchical"))
    larger, both = max(time.intra_s, time.inter_s), time.intra_s + time.inter_s
    assert larger <= time.total_s * ALMOST
    assert time.total_s <= both * ALMOST
    ring = 2 * (k - 1)
    assert time.inter_s == pytest.approx(
        ring * inter.latency_s + ring / k * bytes_ / inter.bandwidth_bytes_per_s
    )


@given(steps, topologies)
def test_the_prediction_lies_in_its_band(step, topology):
    found = predict_step(step, topology)
    assert found.low_s <= found.step_s * ALMOST
    assert found.step_s <= found.high_s * ALMOST
    assert 0.0 < found.efficiency <= ALMOST
    assert found.band


def test_the_efficiencys_band_holds_what_is_uncertain_about_computing():
    """The exchange counts 25 times the computing: the efficiency goes with the computing."""
    step = StepModel(0.0, 1.0, 2.0, 0.0, (BucketModel(75e9, 1.0),), error=0.25)
    wire = Link(0.0, 1e9, error=0.1)
    topology = Topology(2, 1, wire, wire)
    found = predict_step(step, topology)
    for longer in (0.8, 1.25):
        other = replace(step, forward_s=longer, backward_s=2 * longer, error=0.0)
        exact = predict_step(other, Topology(2, 1, replace(wire, error=0.0), wire))
        assert found.efficiency_low < exact.efficiency < found.efficiency_high
    assert found.efficiency_low < found.efficiency / 1.25
    assert found.efficiency_high > found.efficiency * 1.2
    alone = predict_step(step, Topology(1, 1, wire, wire))
    assert (alone.efficiency_low, alone.efficiency_high) == (1.0, 1.0)
    assert (alone.low_s, alone.high_s) == (pytest.approx(3 / 1.25), pytest.approx(3 * 1.25))


def test_the_band_widens_beyond_what_was_measured():
    step = StepModel(0.0, 1.0, 2.0, 0.0, (BucketModel(1e6, 1.0),))
    wire = Link(0.0, 1e9)
    four, eight, far = (predict_step(step, Topology(k, 1, wire, wire)) for k in (4, 8, 1024))
    assert four.high_s / four.step_s < 1.001
    assert eight.high_s / eight.step_s == pytest.approx(1.03, abs=0.001)
    assert far.high_s / far.step_s == pytest.approx(1.24, abs=0.001)
    assert far.efficiency_low < 0.85 < 0.99 < far.efficiency_high
    assert "nothing beyond 4 nodes was measured" in far.band
    assert "nothing beyond" not in four.band


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9),
       st.floats(0.0, 0.1), st.floats(0.0, 0.1))  # fmt: skip
def test_exchanges_follow_one_another_and_none_before_it_is_ready(times, negotiation_s, cycle_s):
    ready_s = sorted(ready for ready, _ in times)
    lengths = [length for _, length in times]
    found = simulate_overlap(ready_s, lengths, negotiation_s=negotiation_s, cycle_s=cycle_s)
    for ready, start in zip(ready_s, found.start_s, strict=True):
        assert start >= ready + negotiation_s - 1e-9
    for end, start in zip(found.end_s, found.start_s[1:], strict=False):
        assert start >= end - 1e-9
    ideal = simulate_overlap(ready_s, lengths)
    assert found.exposed_s >= ideal.exposed_s - 1e-9
    most = ideal.exposed_s + (2 * negotiation_s + 2 * cycle_s) * len(times)
    assert found.exposed_s <= most + 1e-9


def test_a_bucket_waits_half_a_cycle_on_average():
    found = simulate_overlap([1.0], [0.5], cycle_s=0.01)
    assert found.exposed_s == pytest.approx(0.505)
    asking = simulate_overlap([1.0], [0.5], negotiation_s=0.004)
    assert asking.exposed_s == pytest.approx(0.506)  # half of one that is under way, and its own


@pytest.mark.parametrize("algorithm", FLAT_ALGORITHMS)
@pytest.mark.parametrize("n", [2, 3, 4, 5, 7, 8, 33, 1000])
def test_no_algorithm_moves_less_than_it_must(algorithm, n):
    """Each rank has to send what others lack: 2(n-1)/n of the data, if no one does better."""
    moved = sum(step.bytes_ * step.count for step in rounds(1e6, n, algorithm))
    assert moved >= 2 * (n - 1) / n * 1e6 * (1 - 1e-9)
    hops = sum(step.count for step in rounds(1e6, n, algorithm))
    assert hops >= math.ceil(math.log2(n))


@pytest.mark.parametrize(
    ("bytes_", "n", "name"),
    [
        (8, 2, "recursive_doubling"),
        (5000, 3, "ring"),
        (10_000, 2, "recursive_doubling"),
        (100_000, 3, "ring"),
        (262_144, 3, "rabenseifner"),
        (8, 4, "recursive_doubling"),
        (8192, 4, "rabenseifner"),
        (100, 40, "recursive_doubling"),
        (200_000, 100, "recursive_doubling"),
        (300_000, 100, "rabenseifner"),
    ],
)
def test_what_open_mpi_takes(bytes_, n, name):
    assert choose_open_mpi(bytes_, n) == name


def test_three_ranks_take_longer_than_four_by_open_mpis_choice():
    """Seen on lab nodes with links of 100 Mbit/s: 586 ms and 260 ms for 2 MB."""
    wire = Link(0.0, 11.8e6)
    times = {n: allreduce_s(2e6, Topology(n, 1, wire, wire, "openmpi")).total_s for n in (2, 3, 4)}
    assert times[2] == pytest.approx(0.1695, rel=0.01)
    assert times[3] == pytest.approx(0.586, rel=0.02)
    assert times[4] == pytest.approx(0.260, rel=0.03)


def test_nccl_takes_the_tree_where_latency_counts():
    inter, intra = Link(14e-6, 50e9), Link(3.4e-6, 300e9)

    def of(nodes, bytes_, algorithm):
        return allreduce_s(bytes_, Topology(nodes, 8, inter, intra, algorithm))

    assert of(512, 1e3, "nccl") == of(512, 1e3, "tree")
    assert of(512, 1e3, "tree").total_s < of(512, 1e3, "ring").total_s / 10
    assert of(3, 1e10, "nccl") == of(3, 1e10, "ring")


def test_between_two_nodes_a_pair_of_trees_moves_the_data_once():
    """NVIDIA/nccl issue 812: (S/N)·2(N-1) by the ring, S by the trees; so trees are taken."""
    inter, intra = Link(0.0, 50e9), Link(0.0, 300e9)
    two, three = (
        {name: allreduce_s(1e9, Topology(k, 8, inter, intra, name)) for name in ALGORITHMS}
        for k in (2, 3)
    )
    assert two["tree"].inter_s == pytest.approx(1e9 / 50e9)
    assert two["ring"].inter_s == pytest.approx(2 * 15 / 16 * 1e9 / 50e9)
    assert two["nccl"] == two["tree"]
    assert three["tree"].inter_s == pytest.approx(2e9 / 50e9)
    slow_within = Topology(2, 8, inter, Link(0.0, 52e9), "nccl")
    assert allreduce_s(1e9, slow_within).total_s == pytest.approx(2 * 15 / 16 * 1e9 / 50e9)


@given(latencies.filter(lambda s: s > 1e-6), bandwidths, st.integers(2, 64),
       st.sampled_from(["ring", "openmpi"]))  # fmt: skip
def test_a_fit_finds_the_link_that_made_the_times(latency_s, bandwidth, n, algorithm):
    link = Link(latency_s, bandwidth, eager_bytes=1 << 40)
    topology = Topology(n, 1, link, link, algorithm)
    points = [(4**k, allreduce_s(4**k, topology).total_s) for k in range(2, 15)]
    fit = fit_allreduce(points, n, algorithm, eager_bytes=1 << 40)
    assert max(abs(residual) for residual in fit.residuals) < 1e-6
    for bytes_, seconds in points:
        again = allreduce_s(bytes_, Topology(n, 1, fit.link, fit.link, algorithm)).total_s
        assert again == pytest.approx(seconds, rel=1e-5)


def test_a_fit_finds_the_handshake_of_large_messages():
    link = Link(1e-3, 1e8, handshake_s=2e-3)
    points = [(4**k, allreduce_s(4**k, Topology(2, 1, link, link, "openmpi")).total_s)
              for k in range(2, 13)]  # fmt: skip
    fit = fit_allreduce(points, 2, "openmpi")
    assert fit.link.latency_s == pytest.approx(1e-3)
    assert fit.link.handshake_s == pytest.approx(2e-3)
    assert fit.link.bandwidth_bytes_per_s == pytest.approx(1e8)


@pytest.mark.parametrize(("points", "n"), [([(8, 1.0)], 2), ([(8, 1.0), (9, 1.0)], 1)])
def test_too_little_for_a_fit(points, n):
    with pytest.raises(ConfigError, match="expected two message sizes and two ranks"):
        fit_allreduce(points, n)


def test_waiting_grows_with_the_ranks_as_the_slowest_of_them():
    step = StepModel(0.0, 1.0, 2.0, 0.0, (BucketModel(0.0, 1.0),), jitter_cv=0.01)
    wire = Link(0.0, 1e9)
    waits = [predict_parts(step, Topology(n, 1, wire, wire)).waiting_s for n in (2, 8, 512)]
    assert waits == [pytest.approx(0.03 * expected_maximum(n)) for n in (2, 8, 512)]
    assert waits == sorted(waits)
    exact = {2: 0.5642, 8: 1.4236, 100: 2.5076}  # Harter 1961, expected values of order statistics
    assert all(expected_maximum(n) == pytest.approx(value, abs=0.03) for n, value in exact.items())


def test_what_all_ranks_share_is_no_jitter():
    slow_for_all = [[1.0, 5.0, 1.0], [1.0, 5.0, 1.0]]
    assert jitter_of(slow_for_all) == 0.0
    assert jitter_of([[1.0, 1.0], [1.2, 1.2]]) > 0.1  # one that is always slower is


@pytest.mark.parametrize(
    ("step", "inter", "word"),
    [
        (StepModel(0, 1, 2, 0, (BucketModel(1e10, 1.0),)), Link(0.0, 1e9), "bandwidth"),
        (StepModel(0, 1, 2, 0, (BucketModel(8, 1.0),)), Link(0.1, 1e9), "latency"),
        (StepModel(0, 1, 2, 0, (BucketModel(8, 1.0),), 0.05), Link(0.0, 1e9), "waiting"),
        (StepModel(0, 1, 2, 0, (BucketModel(8, 0.1),)), Link(1e-6, 1e9), "nothing"),
    ],
)
def test_it_says_which_term_grows(step, inter, word):
    found = predict_step(step, Topology(2, 1, inter, inter, "ring"))
    assert found.growing_term.startswith(word)


def test_accumulation_hides_what_one_micro_batch_cannot():
    step = StepModel(0.0, 0.1, 0.2, 0.0, plan_bucket_models(1e9, 25e6))
    topology = Topology(4, 1, Link(1e-5, 1e9), Link(1e-5, 1e9))
    once, four = (predict_step(replace(step, accum=count), topology) for count in (1, 4))
    assert four.efficiency > once.efficiency
    assert four.exposed_comm_s == pytest.approx(once.exposed_comm_s)


def test_a_curve_has_a_prediction_for_each_topology():
    wire = Link(1e-5, 1e9)
    sizes = [Topology(n, 2, wire, wire) for n in (1, 2, 4)]
    found = predict_curve(StepModel(0, 1, 2, 0, plan_bucket_models(1e9, 25e6)), sizes)
    assert [(p.nodes, p.ranks) for p in found] == [(1, 2), (2, 4), (4, 8)]


@pytest.mark.parametrize("changes", [{"nodes": 0}, {"ranks_per_node": 0}, {"algorithm": "magic"}])
def test_topologies_that_cannot_be(changes):
    wire = Link(0.0, 1e9)
    with pytest.raises(PlanError, match="topology: "):
        Topology(**{"nodes": 1, "ranks_per_node": 1, "inter": wire, "intra": wire, **changes})


@pytest.mark.parametrize(
    ("text", "bandwidth", "latency_s"),
    [
        ("100gbit,20us", 12.5e9, 20e-6),
        ("1GByte/s,0.5ms", 1e9, 0.5e-3),
        ("400mbit", 5e7, 20e-6),
        (" 8kbit , 1s ", 1e3, 1.0),
    ],
)
def test_links_as_people_write_them(text, bandwidth, latency_s):
    link = parse_link(text)
    assert (link.bandwidth_bytes_per_s, link.latency_s) == (pytest.approx(bandwidth), latency_s)
    assert text.strip() in link.source


def test_everything_wrong_with_a_link_is_named():
    with pytest.raises(ConfigError) as caught:
        parse_link("fast,soon")
    assert [message.partition(",")[0] for message in caught.value.messages] == [
        "--link: no bandwidth", "--link: no latency",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no bandwidth"):
        parse_link("0gbit")


@pytest.mark.parametrize("text", ["", "0", "2,1", "2,...", "...,4", "a", "4,2,...,8", "1,1"])
def test_lists_of_nodes_that_mean_nothing(text):
    with pytest.raises(ConfigError, match="no list of numbers"):
        parse_counts(text)


def test_a_thousand_nodes_by_doubling():
    assert parse_counts("2,4,8,…,1024") == tuple(2**k for k in range(1, 11))
