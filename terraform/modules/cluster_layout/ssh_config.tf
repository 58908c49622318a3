# How ssh on the user's machine reaches the nodes: the head by its public address, the others
# through it. Both a node's name and its private address are known, for people and for MPI.
locals {
  head_name = local.node_names[0]

  ssh_hosts = [
    for index, address in var.private_addresses : join("\n", compact([
      "Host ${local.node_names[index]} ${address}",
      index == 0 ? "  HostName ${coalesce(var.head_address, address)}" : "  HostName ${address}",
      index == 0 ? "" : "  ProxyJump ${local.head_name}",
    ]))
  ]

  ssh_defaults = join("\n", [
    "Host ${join(" ", concat(local.node_names, var.private_addresses))}",
    "  User ${var.ssh_user}",
    "  IdentityFile \"${var.ssh_folder}/id_ed25519\"",
    "  IdentitiesOnly yes",
    "  UserKnownHostsFile \"${var.ssh_folder}/known_hosts\"",
    "  StrictHostKeyChecking accept-new",
    "  ServerAliveInterval 15",
    "  ServerAliveCountMax 4",
  ])

  ssh_config = join("\n", concat(
    ["# Cluster ${var.name}, made by hpctrain."], local.ssh_hosts, [local.ssh_defaults, ""]
  ))
}
