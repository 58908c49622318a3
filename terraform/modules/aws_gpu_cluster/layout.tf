# Names, slots, hostfile, ssh configuration and user data, from the part that needs no cloud.
module "layout" {
  source = "../cluster_layout"

  cloud               = "aws"
  name                = var.name
  nodes               = var.nodes
  machine_type        = var.machine_type
  gpu_type            = var.gpu_type
  gpus_per_node       = var.gpus_per_node
  zone                = var.zone
  private_addresses   = aws_instance.node[*].private_ip
  head_address        = aws_eip.node[0].public_ip
  ssh_user            = "ubuntu"
  ssh_folder          = var.ssh_folder
  shared_disk_source  = one(aws_efs_mount_target.shared[*].ip_address) == null ? null : "${one(aws_efs_mount_target.shared[*].ip_address)}:/"
  idle_shutdown_hours = var.idle_shutdown_hours
  python_requirements = var.python_requirements
  python_constraints  = var.python_constraints
}

locals {
  # A node has one network card, or as many as speak EFA.
  efa_cards = var.fast_network ? module.layout.efa_cards : 0
  cards     = max(1, local.efa_cards)
  tags      = merge(var.labels, { "hpctrain-cluster" = var.name })
}
