# A network of the cluster's own, or the account's default one.
resource "aws_vpc" "own" {
  count                = var.own_network ? 1 : 0
  cidr_block           = var.network_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true # EFS is found by name
  tags                 = merge(local.tags, { Name = var.name })
}

# One subnet, because EFA's own traffic does not leave it.
resource "aws_subnet" "own" {
  count             = var.own_network ? 1 : 0
  vpc_id            = aws_vpc.own[0].id
  cidr_block        = var.network_cidr
  availability_zone = var.zone
  tags              = merge(local.tags, { Name = var.name })
}

resource "aws_internet_gateway" "own" {
  count  = var.own_network ? 1 : 0
  vpc_id = aws_vpc.own[0].id
  tags   = merge(local.tags, { Name = var.name })
}

resource "aws_default_route_table" "own" {
  count                  = var.own_network ? 1 : 0
  default_route_table_id = aws_vpc.own[0].default_route_table_id
  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.own[0].id
  }
  tags = merge(local.tags, { Name = var.name })
}

data "aws_vpc" "default" {
  count   = var.own_network ? 0 : 1
  default = true
}

data "aws_subnet" "default" {
  count             = var.own_network ? 0 : 1
  vpc_id            = data.aws_vpc.default[0].id
  availability_zone = var.zone
  default_for_az    = true
}

locals {
  vpc_id    = var.own_network ? aws_vpc.own[0].id : data.aws_vpc.default[0].id
  subnet_id = var.own_network ? aws_subnet.own[0].id : data.aws_subnet.default[0].id
}
