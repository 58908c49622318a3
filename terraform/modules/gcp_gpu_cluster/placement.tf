# Close together, which Google offers for some series alone. The policy names no number of nodes:
# with one, another node would need another policy, and so replace all.
locals {
  can_be_compact = can(regex("^(a2|a3|g2)-", var.machine_type))
}

resource "google_compute_resource_policy" "close" {
  count  = var.compact_placement && local.can_be_compact ? 1 : 0
  name   = "${var.name}-close"
  region = local.region
  group_placement_policy {
    collocation = "COLLOCATED"
  }
}
