"""Sharded training: what its collectives wait, and what is found from a curve."""

from dataclasses import replace

import pytest

from hpctrain.errors import PlanError
from hpctrain.scaling_model.jitter import expected_maximum
from hpctrain.scaling_model.links import Link
from hpctrain.scaling_model.sharded import (
    ShardedFit,
    ShardedJob,
    fit_sharded,
    latency_s,
    predict_sharded_s,
)
from hpctrain.scaling_model.topology import Topology

INTER, INTRA = Link(14e-6, 300e9), Link(3.4e-6, 300e9)


def job(nodes, sharding="FULL_SHARD", tokens=40_960):
    return ShardedJob(
        tokens=tokens, layers=24, layer_bytes=110e6, sharding=sharding,
        topology=Topology(nodes, 8, INTER, INTRA),
    )  # fmt: skip


def test_a_gather_is_half_of_a_ring_and_there_is_no_tree_for_it():
    """4 nodes of 8: 3 hops between nodes and 28 within, 24 layers, 3 collectives each."""
    one_s = 3 * 14e-6 + 28 * 3.4e-6
    assert latency_s(job(4)) == pytest.approx(24 * 3 * one_s)
    assert latency_s(job(4, "SHARD_GRAD_OP")) == pytest.approx(24 * 2 * one_s)
    assert latency_s(job(64)) > 10 * latency_s(job(4))


@pytest.mark.parametrize("part", [0.0, 0.4, 1.0])
def test_a_fit_finds_what_made_the_steps(part):
    made = ShardedFit(s_per_token=2e-5, jitter_s_per_token=2e-7, exposed_part=part)
    jobs = [
        job(k, tokens=tokens) for k, tokens in ((1, 28_672), (2, 40_960), (4, 40_960), (8, 40_960))
    ]
    found = fit_sharded(jobs, [predict_sharded_s(made, one) for one in jobs])
    assert found.s_per_token == pytest.approx(made.s_per_token)
    assert found.jitter_s_per_token == pytest.approx(made.jitter_s_per_token)
    assert found.exposed_part == pytest.approx(part, abs=1e-6)


def test_no_more_than_all_of_the_latency_is_waited_for():
    base = ShardedFit(s_per_token=2e-5, jitter_s_per_token=0.0, exposed_part=1.0)
    jobs = [job(k) for k in (1, 2, 4, 8)]
    steps = [predict_sharded_s(base, one) + 2 * latency_s(one) for one in jobs]
    assert fit_sharded(jobs, steps).exposed_part == 1.0


def test_the_slowest_of_more_ranks_is_waited_for():
    fit = ShardedFit(s_per_token=2e-5, jitter_s_per_token=2e-7, exposed_part=0.0)
    waits = predict_sharded_s(fit, job(64)) - predict_sharded_s(fit, job(1))
    grown = expected_maximum(512) - expected_maximum(8)
    assert waits == pytest.approx(40_960 * 2e-7 * grown)


def test_an_unknown_sharding_is_refused():
    with pytest.raises(PlanError, match="sharding: unknown"):
        replace(job(1), sharding="HYBRID")
