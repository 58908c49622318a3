# Whom the nodes act as: an account without any role in the project. An id has at most 30 letters.
resource "google_service_account" "node" {
  account_id   = "${trimsuffix(substr("hpt-${var.name}", 0, 21), "-")}-${substr(sha1(var.name), 0, 8)}"
  display_name = "Nodes of cluster ${var.name}"
}
