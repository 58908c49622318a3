"""AWS through hpctrain, Terraform and AWS's real provider, against a local stand-in for AWS.

The stand-in (moto) has no machines: what ssh and rsync would do is answered by a fake, at the one
seam `hpctrain.clusters.cloud.ssh_executor`. Everything else is the real thing.
"""

import base64
import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.needs("aws-provider", "moto")
# The default network and no placement: half the resources, and so half the time.
SMALL = ("--set", "own_network=false", "--set", "compact_placement=false")
COMMON = (
    "--provider", "aws", "--set", "ssh_from_cidrs=198.51.100.7/32",
    "--set", "provider_settings.max_retries=4",
)  # fmt: skip


def instances(ec2, name):
    """The machines of a cluster that are not terminated, by their names."""
    found = ec2.describe_instances(Filters=[
        {"Name": "tag:hpctrain-cluster", "Values": [name]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ])["Reservations"]  # fmt: skip
    machines = [each for reservation in found for each in reservation["Instances"]]
    return {
        next(tag["Value"] for tag in each["Tags"] if tag["Key"] == "Name"): each
        for each in machines
    }


def card_of(machine):
    """The first network card, on which the public address is."""
    return machine["NetworkInterfaces"][0]["NetworkInterfaceId"]


KINDS = {
    "describe_addresses": ("Addresses", "AllocationId"),
    "describe_internet_gateways": ("InternetGateways", "InternetGatewayId"),
    "describe_key_pairs": ("KeyPairs", "KeyName"),
    "describe_launch_templates": ("LaunchTemplates", "LaunchTemplateId"),
    "describe_placement_groups": ("PlacementGroups", "GroupName"),
    "describe_security_groups": ("SecurityGroups", "GroupId"),
    "describe_subnets": ("Subnets", "SubnetId"),
    "describe_vpcs": ("Vpcs", "VpcId"),
}


def everything(ec2):
    """All that exists, whether it carries a tag or not; machines are looked at apart.

    Disks and network cards are left out: AWS deletes them with their machine, as the launch
    template says (check_machine), and the stand-in forgets to.
    """
    return {
        f"{name} {each[key]}"
        for call, (name, key) in KINDS.items()
        for each in getattr(ec2, call)()[name]
    }


def files_of(home, name):
    return [path for path in home.directory(name).path.rglob("*") if path.is_file()]


def test_up_again_grow_and_down(home, aws):
    """Up, a second up with nothing to do, 2 → 3 nodes, down: one cluster, for its time."""
    before = everything(aws)
    home.nodes.gpus = 4
    asked = (*COMMON, "--name", "demo", "--set", "machine_type=g5.12xlarge", "--yes")
    done = home.hpctrain("up", *asked)
    assert done.code == 0, done.err
    assert "price: about 11.40 USD an hour (estimate, list prices 2025-11)" in done.out
    assert "each node turns itself off after 2 idle hours" in done.out
    assert "created    aws_instance.node[0]" in done.out

    made = instances(aws, "demo")
    assert sorted(made) == ["demo-0", "demo-1"]
    addresses = [made[name]["PrivateIpAddress"] for name in sorted(made)]
    hostfile = home.directory("demo").hostfile.read_text()
    assert hostfile == "".join(f"{each} slots=4 max_slots=4\n" for each in addresses)
    assert (home.path / "work" / "hostfile").read_text() == hostfile
    ssh_config = home.directory("demo").ssh_config.read_text()
    head = aws.describe_addresses()["Addresses"][0]
    assert head["NetworkInterfaceId"] == card_of(made["demo-0"])
    assert f"Host demo-0 {addresses[0]}\n  HostName {head['PublicIp']}\n" in ssh_config
    assert (
        f"Host demo-1 {addresses[1]}\n  HostName {addresses[1]}\n  ProxyJump demo-0" in ssh_config
    )
    check_firewall(aws)
    check_machine(aws, made["demo-0"])
    check_no_secret(home, aws, made["demo-0"])

    done = home.hpctrain("up", *COMMON, "--name", "demo", "--dry-run")
    assert done.code == 0, done.err
    assert "nothing to do" in done.out

    done = home.hpctrain("up", *COMMON, "--name", "demo", "--nodes", "3", "--yes")
    assert done.code == 0, done.err
    assert ": 2 to create" in done.out  # the node, and that it is on
    grown = instances(aws, "demo")
    assert sorted(grown) == ["demo-0", "demo-1", "demo-2"]
    assert all(grown[name]["InstanceId"] == made[name]["InstanceId"] for name in made)
    assert len(home.directory("demo").hostfile.read_text().splitlines()) == 3

    state = json.loads((home.directory("demo").path / "terraform.tfstate").read_text())
    assert state["resources"]
    done = home.hpctrain("down", "--name", "demo", "--yes")
    assert done.code == 0, done.err
    assert instances(aws, "demo") == {}
    assert everything(aws) == before
    assert not home.directory("demo").path.exists()
    assert not (home.path / "work" / "hostfile").is_symlink()


def check_firewall(ec2):
    """ssh from the range that was given; everything else from the group itself alone."""
    groups = ec2.describe_security_groups(
        Filters=[{"Name": "group-name", "Values": ["demo-nodes"]}]
    )
    group = groups["SecurityGroups"][0]
    rules = ec2.describe_security_group_rules(
        Filters=[{"Name": "group-id", "Values": [group["GroupId"]]}]
    )["SecurityGroupRules"]
    let_in = [rule for rule in rules if not rule["IsEgress"]]
    open_to = {rule["CidrIpv4"]: rule for rule in let_in if rule.get("CidrIpv4")}
    assert set(open_to) == {"198.51.100.7/32"}
    assert (open_to["198.51.100.7/32"]["FromPort"], open_to["198.51.100.7/32"]["ToPort"]) == (
        22,
        22,
    )
    others = [rule["ReferencedGroupInfo"]["GroupId"] for rule in let_in if not rule.get("CidrIpv4")]
    assert others == [group["GroupId"]]


def check_machine(ec2, machine):
    """Close together, from the Deep Learning image, with an encrypted disk and IMDSv2 alone."""
    import moto_aws

    assert machine["ImageId"] == moto_aws.IMAGE
    template = ec2.describe_launch_template_versions(LaunchTemplateName="demo-node")
    data = template["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    assert data["Placement"]["GroupName"] == "demo-close"
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    disk = data["BlockDeviceMappings"][0]["Ebs"]
    assert (disk["Encrypted"], disk["DeleteOnTermination"]) == (True, True)
    assert [card["DeleteOnTermination"] for card in data["NetworkInterfaces"]] == [True]
    assert data["InstanceInitiatedShutdownBehavior"] == "stop"


def check_no_secret(home, ec2, machine):
    """Private keys are in files of mode 600 of their own, and nowhere else."""
    folder = home.directory("demo").path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    keys = {folder / "id_ed25519", folder / "node_key"}
    assert all(stat.S_IMODE(key.stat().st_mode) == 0o600 for key in keys)
    bodies = ["".join(key.read_text().splitlines()[1:-1]) for key in keys]
    for path in files_of(home, "demo"):
        text = "".join(path.read_text(errors="replace").split())
        if path not in keys:
            assert not any(body[:60] in text for body in bodies), path
            assert "PRIVATEKEY" not in text, path
    sent = ec2.describe_instance_attribute(InstanceId=machine["InstanceId"], Attribute="userData")
    assert "PRIVATE KEY" not in str(sent)
    assert len(base64.b64decode(sent["UserData"]["Value"])) < 16384  # EC2's limit
    assert not any("PRIVATE KEY" in str(command) for command in home.nodes.commands)


def test_efa_on_spot_in_the_default_network(home, aws):
    before = everything(aws)
    home.nodes.gpus = 8
    asked = (*COMMON, *SMALL, "--set", "machine_type=p4d.24xlarge", "--set", "spot=true")
    done = home.hpctrain("up", *asked, "--name", "efa", "--yes")
    assert done.code == 0, done.err
    assert "price: at most" in done.out
    data = aws.describe_launch_template_versions(LaunchTemplateName="efa-node")
    data = data["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    cards = data["NetworkInterfaces"]
    assert [card["InterfaceType"] for card in cards] == ["efa", "efa-only", "efa-only", "efa-only"]
    assert data["InstanceMarketOptions"]["MarketType"] == "spot"
    made = instances(aws, "efa").values()
    networks = {vpc["VpcId"] for vpc in aws.describe_vpcs()["Vpcs"] if vpc["IsDefault"]}
    assert {each["VpcId"] for each in made} == networks
    own = [{"Name": "tag:hpctrain-cluster", "Values": ["efa"]}]
    addresses = aws.describe_addresses(Filters=own)["Addresses"]
    addresses = {each["NetworkInterfaceId"] for each in addresses}
    assert addresses == {card_of(each) for each in made}
    done = home.hpctrain("down", "--name", "efa", "--yes")
    assert done.code == 0, done.err
    assert instances(aws, "efa") == {}
    assert everything(aws) == before


def test_ctrl_c_in_the_middle_is_passed_on_once(home, aws):
    """It ends when Terraform has written its state; what exists is said, and `down` finds it.

    In a process of its own, which alone gets the Ctrl-C; no ssh is reached.
    """
    before = everything(aws)
    words = ["cluster", "up", *COMMON, *SMALL, "--name", "stop", "--yes"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "hpctrain", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert any("creating   aws_instance" in line for line in process.stdout)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Terraform finishes what it has begun, and writes its state" in first
    assert "Terraform is still finishing" in err
    assert "stop: `up` was stopped half-way" in err
    assert "destroy:  hpctrain cluster down --name stop" in err
    assert home.directory("stop").read().state == "creating"
    done = home.hpctrain("down", "--name", "stop", "--yes")
    assert done.code == 0, done.err
    assert everything(aws) == before
    assert instances(aws, "stop") == {}


def test_a_refusal_half_way_and_two_ups_that_go_on_from_it(home, aws, monkeypatch):
    import moto_aws

    from hpctrain.clusters.console import ClusterConsole
    from hpctrain.clusters.make import make_cluster, plan_cluster
    from hpctrain.clusters.provider import ClusterRequest
    from hpctrain.errors import ClusterError

    before = everything(aws)
    monkeypatch.setattr(moto_aws.Failures, "calls", {"RunInstances": "VcpuLimitExceeded"})
    done = home.hpctrain("up", *COMMON, *SMALL, "--name", "half", "--nodes", "1", "--yes")
    assert done.code == 1
    assert "VcpuLimitExceeded" in done.err
    assert "half: `up` stopped half-way." in done.err
    assert "exists:   0 nodes, " in done.err
    assert "aws_launch_template.node" in done.err
    assert "continue: hpctrain cluster up --provider aws --name half" in done.err
    monkeypatch.setattr(moto_aws.Failures, "calls", {})

    request = ClusterRequest("half", "aws", None, {}, dict(os.environ))
    planned = [plan_cluster(request), plan_cluster(request)]
    console, folder = ClusterConsole(quiet=True), home.path / "work"
    assert make_cluster(planned[0][1], planned[0][0], console, folder).state == "up"
    key = (home.directory("half").path / "id_ed25519").read_text()
    with pytest.raises(ClusterError, match="another hpctrain has made, changed or removed"):
        make_cluster(planned[1][1], planned[1][0], console, folder)
    assert sorted(instances(aws, "half")) == ["half-0"]
    assert (home.directory("half").path / "id_ed25519").read_text() == key

    state = home.directory("half").path / "terraform.tfstate"  # as if another had been put there
    kept = json.loads(state.read_text())
    state.write_text(json.dumps({**kept, "resources": [], "serial": kept["serial"] + 1}))
    done = home.hpctrain("down", "--name", "half", "--yes")
    assert done.code == 1
    found = instances(aws, "half")["half-0"]["InstanceId"]
    assert "half: things of it are left that Terraform does not know, got " in done.err
    assert found in done.err
    state.write_text(json.dumps({**kept, "serial": kept["serial"] + 9}))
    done = home.hpctrain("down", "--name", "half", "--yes")
    assert done.code == 0, done.err
    assert "not asked" not in done.err
    assert everything(aws) == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["ssh_from_cidrs=0.0.0.0/1"], "ssh_from_cidrs: opens ssh to everyone, got [0.0.0.0/1]"),
        (["machine_type=p9.huge"], "machine_type: unknown on aws, got 'p9.huge'; expected one of"),
        (
            ["machine_type=p4d.24xlarge", "nodes=6"],
            "nodes: each needs an Elastic IP, for a p4d.24xlarge has several network cards, got 6",
        ),
    ],
)
def test_what_the_modules_refuse_is_said_in_their_words(home, aws, settings, said):
    words = [word for setting in settings for word in ("--set", setting)]
    done = home.hpctrain("plan", *COMMON, *SMALL, "--name", "no", *words)
    assert done.code == 1
    assert f"error: {said}" in done.err
    assert "This was checked by" not in done.err
    assert not home.directory("no").path.exists()


def test_without_credentials_the_provider_says_so(home, aws, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    done = home.hpctrain("plan", *COMMON, *SMALL, "--name", "who")
    assert done.code == 1
    assert "No valid credential sources found" in done.err
    assert not home.directory("who").path.exists()
