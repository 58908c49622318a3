# ssh from the given ranges, everything inside the group, and out to the package indexes.
resource "aws_security_group" "nodes" {
  name        = "${var.name}-nodes"
  description = "Nodes of cluster ${var.name}"
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-nodes" })
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  for_each          = { for cidr in var.ssh_from_cidrs : cidr => strcontains(cidr, ":") }
  security_group_id = aws_security_group.nodes.id
  description       = "ssh"
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_ipv4         = each.value ? null : each.key
  cidr_ipv6         = each.value ? each.key : null
  tags              = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "inside" {
  security_group_id            = aws_security_group.nodes.id
  description                  = "MPI, NCCL and EFA choose their ports themselves"
  ip_protocol                  = "-1"
  referenced_security_group_id = aws_security_group.nodes.id
  tags                         = local.tags
}

# EFA passes traffic only where the group is let out to itself by name, not by a range.
resource "aws_vpc_security_group_egress_rule" "inside" {
  security_group_id            = aws_security_group.nodes.id
  description                  = "EFA between the nodes"
  ip_protocol                  = "-1"
  referenced_security_group_id = aws_security_group.nodes.id
  tags                         = local.tags
}

resource "aws_vpc_security_group_egress_rule" "out" {
  security_group_id = aws_security_group.nodes.id
  description       = "Package indexes and data"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
  tags              = local.tags
}
