# Four nodes with eight A100 each, connected by EFA on four network cards.
terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.84"
    }
  }
}

provider "aws" {
  region = "us-east-1"
}

module "cluster" {
  source = "../../modules/aws_gpu_cluster"

  name           = "p4d-efa"
  nodes          = 4
  machine_type   = "p4d.24xlarge"
  fast_network   = true
  disk_gb        = 500
  shared_disk    = true
  zone           = "us-east-1a"
  ssh_public_key = var.ssh_public_key
  ssh_from_cidrs = var.ssh_from_cidrs
}
