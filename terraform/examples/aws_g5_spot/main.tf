# Two spot nodes with four A10G each: the cheap way to try something on eight GPUs.
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

  name           = "g5-spot"
  nodes          = 2
  machine_type   = "g5.12xlarge"
  spot           = true
  zone           = "us-east-1a"
  ssh_public_key = var.ssh_public_key
  ssh_from_cidrs = var.ssh_from_cidrs
}
