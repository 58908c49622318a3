"""The modules and examples themselves: form, types, their own tests, known weaknesses."""

import json
import subprocess

import checkov_tool
import pytest
import terraforming
import tiers
from terraforming import TERRAFORM, copy_terraform, terraform

MODULES = ("cluster_layout", "aws_gpu_cluster", "gcp_gpu_cluster")
EXAMPLES = sorted(path.name for path in (TERRAFORM / "examples").iterdir())
# What checkov asks for and these modules leave out, each with its reason.
CHECKOV_SKIPPED = {
    "CKV_AWS_88": "the nodes install from public package indexes; ssh is let in by range alone",
    "CKV_AWS_382": "packages, containers and data come from anywhere",
    "CKV_AWS_130": "as CKV_AWS_88",
    "CKV_AWS_126": "detailed monitoring costs, and hpctrain has its own",
    "CKV2_AWS_11": "flow logs of a network that lives for hours cost more than they show",
    "CKV2_AWS_12": "nothing is in the default group, and the default VPC's is not ours to change",
    "CKV2_AWS_41": "the nodes call no AWS service: no role is the least role",
    "CKV2_AWS_19": "each address is attached by aws_eip_association, which the check does not see",
    "CKV2_AWS_5": "the group is attached by the launch template, which the check does not see",
    "CKV_AWS_184": "AWS's own key by default; disk_kms_key names another",
    "CKV_AWS_79": "IMDSv2 is required by the launch template",
    "CKV_AWS_8": "disks are encrypted by the launch template",
    "CKV_AWS_135": "EBS is optimized by the launch template",
    "CKV_AWS_341": "the hop limit is 1; the check does not see it in a launch template",
    "CKV_GCP_40": "as CKV_AWS_88",
    "CKV_GCP_38": "Google encrypts every disk; disk_kms_key names a key of your own",
    "CKV_GCP_26": "as CKV2_AWS_11",
    "CKV_GCP_76": "there is no IPv6 in the subnetwork",
    "CKV2_GCP_18": "the module's firewall is in firewall.tf, which the check does not connect",
    "CKV_GCP_107": "as CKV_AWS_88",
    "CKV_GCP_32": "block-project-ssh-keys is TRUE",
    "CKV_GCP_34": "OS Login would ignore the cluster's own key",
    "CKV_GCP_35": "serial-port-enable is FALSE",
    "CKV_GCP_30": "the nodes have an account of their own",
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return copy_terraform(tmp_path_factory.mktemp("copy"))


def needs(name):
    cloud = name.split("_")[0]
    tiers.require(*{"aws": ("aws-provider",), "gcp": ("google-standin",)}.get(cloud, ()))


def test_every_file_has_terraforms_own_form(terraform_config):
    terraform(TERRAFORM, "fmt", "-check", "-recursive", "-diff", config=terraform_config)


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_valid_and_pass_their_own_tests(name, copy, terraform_config, monkeypatch):
    """GCP's provider is the stand-in of these tests with the published schema, mocked here."""
    needs(name)
    monkeypatch.setenv("GOOGLE_STANDIN_FOLDER", str(copy / "google"))
    folder = copy / "modules" / name
    terraform(folder, "init", "-backend=false", "-no-color", config=terraform_config)
    terraform(folder, "validate", "-no-color", config=terraform_config)
    done = terraform(folder, "test", "-no-color", config=terraform_config, timeout_s=400)
    assert " 0 failed" in done.stdout, done.stdout
    assert "skip" not in done.stdout, done.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_valid(name, copy, terraform_config):
    needs(name)
    folder = copy / "examples" / name
    terraform(folder, "init", "-backend=false", "-no-color", config=terraform_config)
    terraform(folder, "validate", "-no-color", config=terraform_config)


def test_both_clouds_take_the_same_variables_and_give_the_same_outputs():
    aws, gcp = (TERRAFORM / "modules" / name for name in MODULES[1:])
    assert (aws / "variables.tf").read_text() == (gcp / "variables.tf").read_text()

    def outputs(module):
        lines = (module / "outputs.tf").read_text().splitlines()
        return [line for line in lines if line.startswith("output")]

    assert outputs(aws) == outputs(gcp)


def test_no_lock_file_and_no_state_is_in_the_repository():
    listed = subprocess.run(
        ["git", "ls-files", "terraform"], cwd=terraforming.ROOT, capture_output=True, text=True,
        check=False,
    ).stdout  # fmt: skip
    assert ".terraform" not in listed
    assert ".tfstate" not in listed


@pytest.mark.needs("checkov")
def test_checkov_finds_nothing_that_is_not_skipped_for_a_reason(copy):
    words = ["--quiet", "--compact", "--skip-download", "--framework", "terraform", "-o", "json"]
    skipped = ",".join(CHECKOV_SKIPPED)
    done = subprocess.run(
        [checkov_tool.install(), *words, "-d", str(copy), "--skip-check", skipped],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 20
    failed = report["results"]["failed_checks"]
    assert [f"{each['check_id']} {each['check_name']} {each['resource']}" for each in failed] == []
