"""What `up` says before it asks, and what it says when it ended half-way; pure."""

from pathlib import Path

import pytest

pytest.importorskip("python_terraform")

from hpctrain.clusters.cloud.apply import half_way_words
from hpctrain.clusters.cloud.plan import CloudFacts, plan_cloud
from hpctrain.clusters.cloud.prices import estimate_price, read_prices
from hpctrain.clusters.cloud.settings import parse_settings
from hpctrain.clusters.cloud.state import is_node
from hpctrain.clusters.provider import ClusterRequest

NODE = "aws_instance.node[1]"


def plan(actions, **options):
    options = {"ssh_from_cidrs": "198.51.100.7/32", **options}
    settings = parse_settings("aws", options, 2)
    facts = CloudFacts(
        settings=settings, options=options, actions=actions, slots=1,
        price=estimate_price(read_prices(), "aws", settings, nodes=2),
        terraform_version="1.11.4", scratch=Path("/nowhere"),
    )  # fmt: skip
    return plan_cloud(ClusterRequest("demo", "aws", 2, options, {}), facts)


def test_it_says_what_where_how_much_and_asks():
    made = plan({"aws_vpc.own[0]": "create", NODE: "create"})
    assert made.lines[:4] == (
        "demo: 2 nodes g5.xlarge in us-east-1a, on demand, 1 slots each",
        "price: about 2.07 USD an hour (estimate, list prices 2025-11)",
        "idle: each node turns itself off after 2 idle hours",
        "ssh: from 198.51.100.7/32",
    )
    assert made.lines[4:] == (
        "Terraform 1.11.4: 2 to create", "  create   aws_vpc.own[0]", f"  create   {NODE}",
    )  # fmt: skip
    assert made.question
    assert [node.name for node in made.nodes] == ["demo-0", "demo-1"]


def test_nothing_to_do_asks_nothing():
    made = plan({})
    assert made.question == ""
    assert "nothing to do" in made.lines[-1]


def test_a_node_that_would_be_lost_is_a_warning():
    assert plan({NODE: "replace"}).warnings == (f"{NODE}: what is on this node's disk is lost",)
    assert plan({NODE: "update", "aws_eip.node[0]": "delete"}).warnings == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"idle_shutdown_hours": 0}, "idle: nodes run, and cost, until `hpctrain cluster down`"),
        ({"spot": True}, "a spot node of AWS is then gone with its disk"),
    ],
)
def test_what_becomes_of_a_forgotten_cluster(options, words):
    assert any(words in line for line in plan({}, **options).lines)


def test_half_way_says_what_exists_what_it_costs_and_both_ways_on():
    words = half_way_words("demo", "aws", ["aws_vpc.own[0]", NODE], "about 1 USD", stopped=False)
    assert words.splitlines() == [
        "demo: `up` stopped half-way.",
        f"  exists:   1 nodes, 2 resources: aws_vpc.own[0], {NODE}",
        "  costs:    about 1 USD",
        "  continue: hpctrain cluster up --provider aws --name demo",
        "  destroy:  hpctrain cluster down --name demo",
    ]
    assert "nothing exists" in half_way_words("demo", "aws", [], "", stopped=True)


def test_machines_are_told_from_what_belongs_to_them():
    assert is_node("module.cluster.aws_instance.node[0]")
    assert is_node("google_compute_instance.node[12]")
    assert not is_node("aws_ec2_instance_state.on[0]")
