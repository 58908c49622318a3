# Two nodes with eight A100 each, placed close together.
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

  name           = "a2"
  nodes          = 2
  machine_type   = "a2-highgpu-8g"
  disk_gb        = 500
  zone           = "us-central1-a"
  ssh_public_key = var.ssh_public_key
  ssh_from_cidrs = var.ssh_from_cidrs
}
