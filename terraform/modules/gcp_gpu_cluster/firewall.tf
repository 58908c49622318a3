# ssh from the given ranges, and everything between the nodes. Both hold for the cluster's
# service account: unlike a network tag, no other machine of the project can put it on.
resource "google_compute_firewall" "ssh" {
  for_each                = { for kind in ["ipv4", "ipv6"] : kind => [for cidr in var.ssh_from_cidrs : cidr if strcontains(cidr, ":") == (kind == "ipv6")] if anytrue([for cidr in var.ssh_from_cidrs : strcontains(cidr, ":") == (kind == "ipv6")]) }
  name                    = "${var.name}-ssh-${each.key}" # a rule holds one kind of address
  network                 = local.network
  source_ranges           = each.value
  target_service_accounts = [google_service_account.node.email]
  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

resource "google_compute_firewall" "inside" {
  name                    = "${var.name}-inside"
  network                 = local.network
  source_service_accounts = [google_service_account.node.email]
  target_service_accounts = [google_service_account.node.email]
  allow {
    protocol = "all" # MPI and NCCL choose their ports themselves
  }
}
