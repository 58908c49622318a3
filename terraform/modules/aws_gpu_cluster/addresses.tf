# The head keeps its address when it is turned off and on. Nodes with several network cards get
# no automatic public address, and without one they cannot install anything: each gets its own.
# (An account has five at first: "EC2-VPC Elastic IPs" in Service Quotas.)
resource "aws_eip" "node" {
  count      = local.cards > 1 ? var.nodes : 1
  domain     = "vpc"
  tags       = merge(local.tags, { Name = module.layout.node_names[count.index] })
  depends_on = [aws_internet_gateway.own]
  lifecycle {
    precondition { # or AWS says so after the first addresses are made
      condition     = local.cards == 1 || var.nodes <= var.address_quota
      error_message = "nodes: each needs an Elastic IP, for a ${var.machine_type} has several network cards, got ${var.nodes}; expected at most ${var.address_quota}. Have the quota \"EC2-VPC Elastic IPs\" raised and give it as address_quota, or set fast_network = false."
    }
  }
}

resource "aws_eip_association" "node" {
  count                = length(aws_eip.node)
  allocation_id        = aws_eip.node[count.index].id
  network_interface_id = aws_instance.node[count.index].primary_network_interface_id
}
