# Every cloud's module has these outputs.
output "nodes" {
  description = "Per node: name, id at the cloud, private address, public address (null for none)."
  value = [
    for index, node in google_compute_instance.node : {
      name            = node.name
      id              = node.instance_id # a machine made anew has another; node.id stays
      private_address = node.network_interface[0].network_ip
      public_address  = index == 0 ? google_compute_address.head.address : null
    }
  ]
}

output "head_address" {
  description = "Public address of node 0."
  value       = google_compute_address.head.address
}

output "ssh_user" {
  description = "The nodes' user."
  value       = "ubuntu"
}

output "gpus_per_node" {
  description = "GPUs, and so slots, of a node."
  value       = module.layout.gpus_per_node
}

output "network_gbps" {
  description = "A node's network bandwidth in Gb/s, null where it is not known."
  value       = module.layout.network_gbps
}

output "hostfile" {
  description = "Open MPI hostfile with private addresses; node 0 is the head."
  value       = module.layout.hostfile
}

output "ssh_config" {
  description = "ssh configuration for the user's machine."
  value       = module.layout.ssh_config
}

output "image" {
  description = "The image that every node was made from."
  value       = terraform_data.as_created.output.image
}
