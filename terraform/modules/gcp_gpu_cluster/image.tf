# Google's Deep Learning VM image with CUDA 12.9, NVIDIA's driver 580 and Ubuntu, whose
# cloud-init reads the same user data as on AWS. (Its Debian images have no cloud-init.)
data "google_compute_image" "image" {
  count   = var.image == null ? 1 : 0
  family  = "common-cu129-ubuntu-2204-nvidia-580"
  project = "deeplearning-platform-release"
}

# The newest image of a family moves on. A cluster keeps what its first nodes were made from, so
# that a node that joins later is the same, and none is replaced for a new image.
resource "terraform_data" "as_created" {
  input = {
    image     = coalesce(var.image, one(data.google_compute_image.image[*].self_link))
    user_data = module.layout.cloud_init
  }
  lifecycle {
    ignore_changes = [input]
  }
}
