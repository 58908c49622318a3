"""The rules' table on whole machines: every flag and variable with its reason, line by line."""

from dataclasses import replace
from pathlib import Path

import pytest
from facts_of import (
    A2,
    A3_HIGHGPU,
    A3_MEGA,
    ETHERNET,
    FACT_SETS,
    INFINIBAND,
    LAPTOP,
    NVLINK_NODE,
    P4D_EFA,
    PCIE_NODE,
)

from hpctrain.hosts import parse_host_list
from hpctrain.launch import plan
from hpctrain.launch.dialects import DIALECTS
from hpctrain.launch.plan import plan_launch
from hpctrain.launch.request import LaunchRequest
from hpctrain.launch.rule import Versions
from hpctrain.launch.rules import RULES

GOLDEN = Path(__file__).parents[1] / "golden" / "rules"
# Google's and AWS's own: none of them may reach another cloud's machine.
CLOUD_NAMES = {"aws": ("FI_EFA_", "NCCL_SHM_USE"), "gcp": ("NCCL_GPUDIRECTTCPX", "NCCL_FASTRAK")}


def plan_of(fact_set, environ=None, **facts):
    hosts = parse_host_list(fact_set.hosts).hosts if fact_set.hosts else None
    asked = LaunchRequest(
        ("train",), hosts=hosts, np=fact_set.np, run_path="runs/r", python="/venv/bin/python",
        environ={"PATH": "/venv/bin:/usr/bin", **(environ or {})},
    )  # fmt: skip
    return plan_launch(asked, replace(fact_set.facts, **facts))


def alike(fact_set, **facts):
    """Return the fact set with other facts on all of its hosts."""
    known = {name: replace(host, **facts) for name, host in fact_set.facts.hosts.items()}
    launcher = replace(fact_set.facts.launcher, **facts)
    return replace(fact_set, facts=replace(fact_set.facts, launcher=launcher, hosts=known))


def render(plan):
    """Return all that a plan sets and says, with its reasons, a line each."""
    ours = ("HPCTRAIN_", "MASTER_")
    lines = [
        f"{r.setting} {r.value}\n    {r.rule}\n    fact: {r.fact}\n    source: {r.source}"
        for r in plan.reasons
        if not r.setting.startswith(ours)
    ]
    return "\n".join([*lines, *(f"warning: {text}" for text in plan.warnings)]) + "\n"


def nccl_and_fabric(plan):
    names = ("NCCL_", "FI_", "UCX_", "RDMAV_")
    return {n: v for n, v in plan.command.env.items() if n.startswith(names)}


@pytest.mark.parametrize("name", FACT_SETS)
def test_whole_table(name):
    assert render(plan_of(FACT_SETS[name])) == (GOLDEN / f"{name}.txt").read_text()


def situations(monkeypatch, plans):
    """Return what the rules see of the launches that are planned."""
    seen = []
    monkeypatch.setattr(plan, "plan_settings", lambda situation: seen.append(situation) or [])
    for fact_set, more in plans:
        plan_of(fact_set, **more)
    return seen


def test_every_row_of_the_table_is_asked_for_by_some_machine(monkeypatch):
    old_plugin = alike(P4D_EFA, versions={"aws-ofi-nccl": "1.5.0"})
    g5 = replace(PCIE_NODE.facts.launcher, cloud="aws", instance_type="g5.12xlarge",
                 versions={"nccl": "2.21.5"})  # fmt: skip
    names = tuple(replace(i, name="eth") for i in A3_HIGHGPU.facts.launcher.interfaces)
    root = replace(LAPTOP.facts.launcher, user_id=0)
    plans = [
        *((fact_set, {}) for fact_set in FACT_SETS.values()),
        (old_plugin, {}),
        (PCIE_NODE, {"launcher": g5}),
        (alike(A3_HIGHGPU, interfaces=names), {}),
        (alike(INFINIBAND, versions={"nccl": "2.29.7"}), {}),
        (LAPTOP, {"has_ssh": False, "launcher": root}),
        (ETHERNET, {"mpi_flavour": "openmpi4"}),
        (replace(ETHERNET, hosts="n[1-64]:1"), {}),
    ]
    seen = situations(monkeypatch, plans)
    never = [rule for rule in RULES if not any(rule.apply(each) for each in seen)]
    assert [(rule.intent, rule.value) for rule in never] == []


def test_every_golden_table_is_some_fact_set_s():
    assert {path.stem for path in GOLDEN.glob("*")} == set(FACT_SETS)


def test_every_rule_has_reason_and_source_and_words_in_some_mpi():
    intents = {intent for dialect in DIALECTS.values() for intent in dialect.intents}
    for rule in RULES:
        assert rule.reason, rule.intent
        assert rule.source, rule.intent
        words = rule.intent.startswith(("env:", "advice:")) or rule.intent == "note"
        assert words or rule.intent in intents


@pytest.mark.parametrize("name", FACT_SETS)
@pytest.mark.parametrize("cloud", CLOUD_NAMES)
def test_no_cloud_s_variables_on_another(name, cloud):
    fact_set = FACT_SETS[name]
    if fact_set.facts.launcher.cloud != cloud:
        found = nccl_and_fabric(plan_of(fact_set))
        assert [n for n in found if n.startswith(CLOUD_NAMES[cloud])] == []


def test_one_node_with_nvlink_gets_nothing():
    plan = plan_of(NVLINK_NODE)
    assert nccl_and_fabric(plan) == {}
    assert plan.warnings == ()


def test_one_a3_highgpu_alone_gets_nothing():
    alone = replace(A3_HIGHGPU, hosts=None)
    assert nccl_and_fabric(plan_of(alone, hosts={})) == {}


# Source: AWS's EFA cheat sheet, "Sample presets" 3.1 to 3.3.
@pytest.mark.parametrize(
    ("plugin", "variables"),
    [
        ("1.14.2", {}),
        ("1.7.0", {}),
        ("1.6.0-aws", {"FI_EFA_USE_DEVICE_RDMA": "1"}),
        ("1.5.0", {"FI_EFA_USE_DEVICE_RDMA": "1", "FI_PROVIDER": "efa", "NCCL_PROTO": "simple"}),
        (None, {}),
    ],
)
def test_efa_by_the_plugin_s_version(plugin, variables):
    versions = {"aws-ofi-nccl": plugin} if plugin else {}
    found = nccl_and_fabric(plan_of(alike(P4D_EFA, versions=versions)))
    assert found == {"FI_EFA_USE_HUGE_PAGE": "0", **variables}


def test_an_old_plugin_needs_rdma_words_only_where_there_is_rdma():
    g4 = alike(P4D_EFA, instance_type="g4dn.metal", versions={"aws-ofi-nccl": "1.5.0"})
    assert nccl_and_fabric(plan_of(g4)) == {"FI_EFA_USE_HUGE_PAGE": "0"}


def test_a_version_that_one_host_does_not_have_sets_nothing():
    old = {"aws-ofi-nccl": "1.6.0"}
    mixed = alike(P4D_EFA, versions=old)
    other = replace(mixed.facts.hosts["n2"], versions={"aws-ofi-nccl": "1.14.2"})
    found = nccl_and_fabric(plan_of(mixed, hosts={"n2": other}))
    assert "FI_EFA_USE_DEVICE_RDMA" not in found


@pytest.mark.parametrize("flavour", ["mpich", "intelmpi"])
def test_libfabric_s_provider_for_mpi_never_keeps_nccl_off_the_efa(flavour):
    assert "FI_PROVIDER" not in nccl_and_fabric(plan_of(P4D_EFA, mpi_flavour=flavour))
    assert nccl_and_fabric(plan_of(A2, mpi_flavour=flavour))["FI_PROVIDER"] == "tcp"


@pytest.mark.parametrize(
    ("instance", "nccl", "set_"),
    [
        ("g5.12xlarge", "2.21.5", True),
        ("g6e.48xlarge", "2.30.4", True),
        ("g4dn.12xlarge", "2.21.5", False),
        ("g5.12xlarge", "2.30.7", False),  # where NCCL reads it no longer
    ],
)
def test_g5_and_g6_copy_by_copy_engine(instance, nccl, set_):
    node = replace(
        PCIE_NODE.facts.launcher, cloud="aws", instance_type=instance, versions={"nccl": nccl},
        gpu_p2p=None,
    )  # fmt: skip
    found = nccl_and_fabric(plan_of(PCIE_NODE, launcher=node))
    assert found == ({"NCCL_SHM_USE_CUDA_MEMCPY": "1"} if set_ else {})


def test_a_script_that_was_sourced_is_not_asked_for_again():
    asked = plan_of(A3_MEGA)
    assert any("nccl-env-profile.sh" in warning for warning in asked.warnings)
    done = plan_of(A3_MEGA, {"NCCL_FASTRAK_IFNAME": "enp6s0", "NCCL_NET": "FasTrak"})
    assert not any("nccl-env-profile.sh" in warning for warning in done.warnings)
    assert "NCCL_NET" not in done.command.env


def test_an_a3_highgpu_whose_interfaces_have_other_names_is_told():
    other = tuple(
        replace(i, name=f"eth{n}") for n, i in enumerate(A3_HIGHGPU.facts.launcher.interfaces)
    )
    plan = plan_of(alike(A3_HIGHGPU, interfaces=other))
    assert nccl_and_fabric(plan) == {}
    assert any("names of this image's interfaces" in warning for warning in plan.warnings)


def test_an_infiniband_port_that_differs_between_hosts_names_no_devices():
    other = replace(
        INFINIBAND.facts.hosts["n2"], rdma_ports=INFINIBAND.facts.launcher.rdma_ports[:3]
    )
    found = nccl_and_fabric(plan_of(INFINIBAND, hosts={"n2": other}))
    assert found == {"NCCL_NET": "IB"}


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("2.28.3", "may hang on many ranks"),
        ("2.28.8", "may hang on many ranks"),
        ("2.29.7", "hangs for some on InfiniBand"),
        ("2.30.6", "hangs for some on InfiniBand"),
        ("2.28.9", None),
        ("2.30.7", None),
        ("2.27.6", None),
    ],
)
def test_bad_nccl_versions_are_said(version, words):
    warnings = plan_of(alike(INFINIBAND, versions={"nccl": version})).warnings
    assert [bool(words) and words in warning for warning in warnings] == ([True] if words else [])


def test_versions_are_compared_as_numbers():
    assert Versions("nccl", before="2.21").contains("2.9.6")
    assert not Versions("nccl", before="2.21").contains("2.21.0")
    assert not Versions("nccl", since="2.3").contains("unknown")
