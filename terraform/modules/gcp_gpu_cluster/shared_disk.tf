# One folder for all nodes, for checkpoints and data. Google sells no smaller one than 1 TiB.
resource "google_filestore_instance" "shared" {
  count    = var.shared_disk ? 1 : 0
  name     = "${var.name}-shared"
  location = var.zone
  tier     = "BASIC_HDD"
  labels   = local.labels
  file_shares {
    name        = "shared"
    capacity_gb = 1024
  }
  networks {
    network = var.own_network ? google_compute_network.own[0].name : "default"
    modes   = ["MODE_IPV4"]
  }
}
