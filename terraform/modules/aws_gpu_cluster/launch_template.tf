# What a node is. Instances take it from here because aws_instance alone cannot ask for several
# network cards at launch.
resource "aws_key_pair" "cluster" {
  key_name   = "${var.name}-key"
  public_key = var.ssh_public_key
  tags       = local.tags
}

resource "aws_placement_group" "close" {
  count    = var.compact_placement ? 1 : 0
  name     = "${var.name}-close"
  strategy = "cluster"
  tags     = local.tags
}

resource "aws_launch_template" "node" {
  name                   = "${var.name}-node"
  description            = "Nodes of cluster ${var.name}"
  image_id               = terraform_data.as_created.output.image_id
  instance_type          = var.machine_type
  key_name               = aws_key_pair.cluster.key_name
  ebs_optimized          = true
  update_default_version = true
  # Turned off, not deleted, when idle: what was not fetched stays on the disk. AWS offers no
  # such thing for one-time spot instances.
  instance_initiated_shutdown_behavior = var.spot ? "terminate" : "stop"
  tags                                 = local.tags

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required" # IMDSv2 alone
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = terraform_data.as_created.output.root_device_name
    ebs {
      volume_size           = var.disk_gb
      volume_type           = "gp3"
      encrypted             = true
      kms_key_id            = var.disk_kms_key
      delete_on_termination = true
    }
  }

  dynamic "network_interfaces" {
    for_each = range(local.cards)
    content {
      network_card_index = network_interfaces.value
      device_index       = network_interfaces.value == 0 ? 0 : 1
      # Cards after the first carry EFA alone and take no address.
      interface_type        = local.efa_cards == 0 ? "interface" : network_interfaces.value == 0 ? "efa" : "efa-only"
      subnet_id             = local.subnet_id
      security_groups       = [aws_security_group.nodes.id]
      delete_on_termination = true
      # With several cards AWS refuses an automatic public address, see addresses.tf.
      associate_public_ip_address = local.cards == 1 ? true : null
    }
  }

  dynamic "placement" {
    for_each = aws_placement_group.close
    content {
      group_name = placement.value.name
    }
  }

  dynamic "instance_market_options" {
    for_each = var.spot ? ["one-time"] : []
    content {
      market_type = "spot"
      spot_options {
        spot_instance_type             = instance_market_options.value
        instance_interruption_behavior = "terminate"
      }
    }
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume", "network-interface"]
    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = var.name })
    }
  }
}
