output "node_names" {
  description = "Names of the nodes; node 0 is the head."
  value       = local.node_names
}

output "gpus_per_node" {
  description = "GPUs, and so slots, of a node."
  value       = local.gpus_per_node
  precondition { # no validation: machine_type's own looks at gpus_per_node already
    condition     = local.machine.gpus == null || local.machine.gpus == local.gpus_per_node
    error_message = "gpus_per_node: ${var.machine_type} has ${coalesce(local.machine.gpus, 0)} GPUs, got ${local.gpus_per_node}; expected that number or nothing."
  }
}

output "efa_cards" {
  description = "Network cards of a node that speak EFA; 0 for none."
  value       = local.machine.efa_cards
}

output "network_gbps" {
  description = "A node's network bandwidth in Gb/s, null where it is not known."
  value       = local.machine.network_gbps
}

output "hostfile" {
  description = "Open MPI hostfile."
  value       = local.hostfile
}

output "ssh_config" {
  description = "ssh configuration for the user's machine."
  value       = local.ssh_config
}

output "cloud_init" {
  description = "cloud-init user data, the same for every node."
  value       = local.cloud_init
}
