resource "google_compute_instance" "node" {
  count                     = var.nodes
  name                      = module.layout.node_names[count.index]
  machine_type              = var.machine_type
  zone                      = var.zone
  labels                    = local.labels
  desired_status            = "RUNNING" # a node that had turned itself off is started by `up`
  allow_stopping_for_update = false     # no change is worth turning off a node that trains
  deletion_protection       = false
  resource_policies         = google_compute_resource_policy.close[*].id

  boot_disk {
    auto_delete       = true
    kms_key_self_link = var.disk_kms_key
    initialize_params {
      image  = terraform_data.as_created.output.image
      size   = var.disk_gb
      type   = "pd-balanced"
      labels = local.labels
    }
  }

  # A2, A3 and G2 bring their GPUs; an n1 gets them here.
  dynamic "guest_accelerator" {
    for_each = var.gpu_type == null ? [] : [var.gpu_type]
    content {
      type  = guest_accelerator.value
      count = module.layout.gpus_per_node
    }
  }

  network_interface {
    subnetwork = local.subnetwork
    nic_type   = var.fast_network ? "GVNIC" : "VIRTIO_NET"
    access_config {
      nat_ip       = count.index == 0 ? google_compute_address.head.address : null
      network_tier = "PREMIUM"
    }
  }

  scheduling {
    on_host_maintenance = "TERMINATE" # a machine with GPUs cannot be moved while it runs
    automatic_restart   = !var.spot
    preemptible         = var.spot
    provisioning_model  = var.spot ? "SPOT" : "STANDARD"
  }

  shielded_instance_config {
    enable_vtpm                 = true
    enable_integrity_monitoring = true
    enable_secure_boot          = false # refuses NVIDIA's kernel modules, which nobody it knows has signed
  }

  service_account {
    email  = google_service_account.node.email
    scopes = ["https://www.googleapis.com/auth/logging.write", "https://www.googleapis.com/auth/monitoring.write"]
  }

  metadata = {
    user-data              = terraform_data.as_created.output.user_data
    ssh-keys               = "ubuntu:${var.ssh_public_key}"
    block-project-ssh-keys = "TRUE"  # the cluster's key, and no other of the project
    enable-oslogin         = "FALSE" # OS Login would ignore that key
    serial-port-enable     = "FALSE"
    install-nvidia-driver  = "True" # or the image would ask at the first login
  }

  # Types such as a2-ultragpu bring local SSDs, which Google lists as scratch disks that nobody
  # asked for: the next plan would replace every node (terraform-provider-google#19648).
  lifecycle {
    ignore_changes = [scratch_disk]
  }
}
