# Two nodes with one T4 each: the smallest cluster that shows a network between GPUs.
terraform {
  required_version = ">= 1.9"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0, < 9.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = "us-central1"
}

variable "project" {
  description = "Google Cloud project, in which the Compute Engine API is on."
  type        = string
}

module "cluster" {
  source = "../../modules/gcp_gpu_cluster"

  name           = "n1-t4"
  nodes          = 2
  machine_type   = "n1-standard-8"
  gpu_type       = "nvidia-tesla-t4"
  gpus_per_node  = 1
  zone           = "us-central1-a"
  ssh_public_key = var.ssh_public_key
  ssh_from_cidrs = var.ssh_from_cidrs
}
