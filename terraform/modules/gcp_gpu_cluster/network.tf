# A network of the cluster's own, or the project's default one.
resource "google_compute_network" "own" {
  count                   = var.own_network ? 1 : 0
  name                    = "${var.name}-network"
  auto_create_subnetworks = false
  mtu                     = 8896 # the largest: fewer packets for the same gradients
}

resource "google_compute_subnetwork" "own" {
  count                    = var.own_network ? 1 : 0
  name                     = "${var.name}-subnet"
  region                   = local.region
  network                  = google_compute_network.own[0].id
  ip_cidr_range            = var.network_cidr
  private_ip_google_access = true
}

data "google_compute_network" "default" {
  count = var.own_network ? 0 : 1
  name  = "default"
}

data "google_compute_subnetwork" "default" {
  count  = var.own_network ? 0 : 1
  name   = "default"
  region = local.region
}

locals {
  network    = var.own_network ? google_compute_network.own[0].id : data.google_compute_network.default[0].id
  subnetwork = var.own_network ? google_compute_subnetwork.own[0].id : data.google_compute_subnetwork.default[0].id
}
