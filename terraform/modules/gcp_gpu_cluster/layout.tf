# Names, slots, hostfile, ssh configuration and user data, from the part that needs no cloud.
module "layout" {
  source = "../cluster_layout"

  cloud               = "gcp"
  name                = var.name
  nodes               = var.nodes
  machine_type        = var.machine_type
  gpu_type            = var.gpu_type
  gpus_per_node       = var.gpus_per_node
  zone                = var.zone
  private_addresses   = google_compute_instance.node[*].network_interface[0].network_ip
  head_address        = google_compute_address.head.address
  ssh_user            = "ubuntu"
  ssh_folder          = var.ssh_folder
  shared_disk_source  = var.shared_disk ? "${google_filestore_instance.shared[0].networks[0].ip_addresses[0]}:/shared" : null
  idle_shutdown_hours = var.idle_shutdown_hours
  python_requirements = var.python_requirements
  python_constraints  = var.python_constraints
}

locals {
  region = regex("^(.*)-[a-z]$", var.zone)[0]
  labels = merge(var.labels, { "hpctrain-cluster" = var.name })
}
