# No cloud and no account: a mock makes up what AWS would answer. Each run starts the provider
# anew, which takes seconds, so one run holds all that one set of variables shows.
mock_provider "aws" {
  mock_data "aws_ssm_parameter" {
    defaults = { insecure_value = "ami-0123456789abcdef0" }
  }
  mock_data "aws_ami" {
    defaults = { id = "ami-0123456789abcdef0", root_device_name = "/dev/sda1" }
  }
  mock_resource "aws_launch_template" { # the provider checks the form of this one
    defaults = { id = "lt-0123456789abcdef0" }
  }
}

variables {
  name           = "demo"
  machine_type   = "g5.12xlarge"
  zone           = "us-east-1a"
  ssh_from_cidrs = ["198.51.100.7/32"]
  ssh_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPublicHalfOnly demo"
}

run "two_nodes" {
  assert {
    condition     = length(aws_instance.node) == 2 && length(output.nodes) == 2 && output.gpus_per_node == 4
    error_message = "nodes: ${length(aws_instance.node)}"
  }
  assert {
    condition     = length(split("\n", trimspace(output.hostfile))) == 2 && strcontains(output.ssh_config, "ProxyJump demo-0")
    error_message = "${output.hostfile}\n${output.ssh_config}"
  }
  assert {
    condition     = length(aws_eip.node) == 1
    error_message = "only the head needs an address of its own, got ${length(aws_eip.node)}"
  }

  # ssh is open to the given range alone, everything else to the group itself
  assert {
    condition     = keys(aws_vpc_security_group_ingress_rule.ssh) == ["198.51.100.7/32"] && aws_vpc_security_group_ingress_rule.ssh["198.51.100.7/32"].to_port == 22
    error_message = "ssh: ${join(", ", keys(aws_vpc_security_group_ingress_rule.ssh))}"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.inside.referenced_security_group_id == aws_security_group.nodes.id && aws_vpc_security_group_ingress_rule.inside.cidr_ipv4 == null
    error_message = "all traffic is let in from the group itself, and from nowhere else"
  }

  # safe defaults of a node
  assert {
    condition     = aws_launch_template.node.metadata_options[0].http_tokens == "required"
    error_message = "IMDSv2 must be required"
  }
  assert {
    condition     = tobool(aws_launch_template.node.block_device_mappings[0].ebs[0].encrypted) && aws_launch_template.node.block_device_mappings[0].ebs[0].volume_size == 200
    error_message = "the disk must be encrypted"
  }
  assert {
    condition     = aws_launch_template.node.instance_initiated_shutdown_behavior == "stop"
    error_message = "an idle node must keep its disk"
  }
}

run "a_third_node_changes_nothing_else" {
  variables {
    nodes = 3
  }
  assert {
    condition     = aws_instance.node[0].id == run.two_nodes.nodes[0].id && aws_instance.node[1].id == run.two_nodes.nodes[1].id
    error_message = "a node was replaced"
  }
}

run "efa_on_every_card_and_an_address_for_every_node" {
  variables {
    machine_type = "p4d.24xlarge"
    nodes        = 4
  }
  assert {
    condition     = [for card in aws_launch_template.node.network_interfaces : card.interface_type] == ["efa", "efa-only", "efa-only", "efa-only"]
    error_message = jsonencode(aws_launch_template.node.network_interfaces)
  }
  assert {
    condition     = [for card in aws_launch_template.node.network_interfaces : card.device_index] == [0, 1, 1, 1]
    error_message = jsonencode(aws_launch_template.node.network_interfaces)
  }
  assert {
    condition     = alltrue([for card in aws_launch_template.node.network_interfaces : card.associate_public_ip_address != "true"])
    error_message = "AWS refuses an automatic public address with several cards"
  }
  assert {
    condition     = length(aws_eip.node) == 4
    error_message = "without an address of its own a node cannot install anything"
  }
}

run "more_addresses_than_an_account_has_are_refused" {
  command = plan
  variables {
    machine_type = "p4d.24xlarge"
    nodes        = 6
  }
  expect_failures = [aws_eip.node]
}

run "every_choice_turned_round" {
  variables {
    machine_type      = "p4d.24xlarge"
    fast_network      = false
    spot              = true
    own_network       = false
    compact_placement = false
    shared_disk       = true
  }
  assert {
    condition     = [for card in aws_launch_template.node.network_interfaces : card.interface_type] == ["interface"]
    error_message = jsonencode(aws_launch_template.node.network_interfaces)
  }
  assert {
    condition     = aws_launch_template.node.instance_market_options[0].spot_options[0].spot_instance_type == "one-time" && aws_launch_template.node.instance_initiated_shutdown_behavior == "terminate"
    error_message = "a persistent request would start the node again after `down`"
  }
  assert {
    condition     = length(aws_ec2_instance_state.on) == 0
    error_message = "a spot node cannot be started again"
  }
  assert {
    condition     = length(aws_vpc.own) == 0 && length(aws_placement_group.close) == 0
    error_message = "nothing of its own was asked for"
  }
  assert {
    condition     = aws_efs_file_system.shared[0].encrypted && length(aws_efs_mount_target.shared) == 1
    error_message = "EFS must be encrypted"
  }
}

run "ssh_from_everywhere_is_refused" {
  command = plan
  variables {
    ssh_from_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.ssh_from_cidrs]
}

run "both_halves_of_everywhere_are_refused" {
  command = plan
  variables {
    ssh_from_cidrs = ["0.0.0.0/1", "128.0.0.0/1"]
  }
  expect_failures = [var.ssh_from_cidrs]
}

run "ssh_from_everywhere_by_name" {
  command = plan
  variables {
    ssh_from_cidrs    = ["0.0.0.0/0", "::/0"]
    ssh_from_anywhere = true
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.ssh["::/0"].cidr_ipv6 == "::/0"
    error_message = "an IPv6 range is one"
  }
}

run "what_cannot_be_is_refused_all_at_once" {
  command = plan
  variables {
    name                = "Demo_1"
    nodes               = 1.5
    network_cidr        = "10.42.0.0/30"
    ssh_public_key      = "-----BEGIN OPENSSH PRIVATE KEY-----"
    disk_gb             = 10
    idle_shutdown_hours = -1
    gpus_per_node       = 3
    labels              = { Team = "A" }
  }
  expect_failures = [
    var.name, var.nodes, var.network_cidr, var.ssh_public_key, var.disk_gb,
    var.idle_shutdown_hours, var.gpus_per_node, var.labels,
  ]
}
