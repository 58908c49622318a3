# The head keeps its address when it is turned off and on; the others have automatic ones, to
# install from the package indexes.
resource "google_compute_address" "head" {
  name         = "${var.name}-head"
  region       = local.region
  network_tier = "PREMIUM"
}
