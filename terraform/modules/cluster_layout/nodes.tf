# Which nodes there are, and the hostfile that `hpctrain run` and mpirun read.
locals {
  # One slot a GPU. An n1 with a gpu_type and no number gets one GPU.
  gpus_per_node = coalesce(var.gpus_per_node, local.machine.gpus, 1)
  node_names    = [for index in range(var.nodes) : "${var.name}-${index}"]

  # Until the nodes exist there are no addresses, and so no hosts.
  hosts = { for index, address in var.private_addresses : local.node_names[index] => address }

  # Private addresses: ranks talk inside the network. max_slots makes MPI refuse a second rank
  # on a GPU. Node 0 comes first and is the head, where mpirun runs.
  hostfile = join("", [
    for name in slice(local.node_names, 0, length(var.private_addresses)) :
    "${local.hosts[name]} slots=${local.gpus_per_node} max_slots=${local.gpus_per_node}\n"
  ])
}
