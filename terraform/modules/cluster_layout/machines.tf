# GPUs, network bandwidth (Gb/s) and network cards of machine types, as the vendors' pages give
# them (AWS "Accelerated computing instances", GCP "GPU machine types"; read 2026-11).
# AWS's P2 and P3 are left out: today's Deep Learning AMI has no driver for them.
locals {
  machines = {
    aws = {
      "g4dn.xlarge"      = { gpus = 1, gpu = "T4", gbps = 5, efa_cards = 0 }
      "g4dn.2xlarge"     = { gpus = 1, gpu = "T4", gbps = 10, efa_cards = 0 }
      "g4dn.4xlarge"     = { gpus = 1, gpu = "T4", gbps = 20, efa_cards = 0 }
      "g4dn.8xlarge"     = { gpus = 1, gpu = "T4", gbps = 50, efa_cards = 1 }
      "g4dn.12xlarge"    = { gpus = 4, gpu = "T4", gbps = 50, efa_cards = 1 }
      "g4dn.16xlarge"    = { gpus = 1, gpu = "T4", gbps = 50, efa_cards = 1 }
      "g4dn.metal"       = { gpus = 8, gpu = "T4", gbps = 100, efa_cards = 1 }
      "g5.xlarge"        = { gpus = 1, gpu = "A10G", gbps = 2.5, efa_cards = 0 }
      "g5.2xlarge"       = { gpus = 1, gpu = "A10G", gbps = 5, efa_cards = 0 }
      "g5.4xlarge"       = { gpus = 1, gpu = "A10G", gbps = 10, efa_cards = 0 }
      "g5.8xlarge"       = { gpus = 1, gpu = "A10G", gbps = 25, efa_cards = 1 }
      "g5.12xlarge"      = { gpus = 4, gpu = "A10G", gbps = 40, efa_cards = 1 }
      "g5.16xlarge"      = { gpus = 1, gpu = "A10G", gbps = 25, efa_cards = 1 }
      "g5.24xlarge"      = { gpus = 4, gpu = "A10G", gbps = 50, efa_cards = 1 }
      "g5.48xlarge"      = { gpus = 8, gpu = "A10G", gbps = 100, efa_cards = 1 }
      "g6.xlarge"        = { gpus = 1, gpu = "L4", gbps = 2.5, efa_cards = 0 }
      "g6.2xlarge"       = { gpus = 1, gpu = "L4", gbps = 5, efa_cards = 0 }
      "g6.4xlarge"       = { gpus = 1, gpu = "L4", gbps = 10, efa_cards = 0 }
      "g6.8xlarge"       = { gpus = 1, gpu = "L4", gbps = 25, efa_cards = 1 }
      "g6.12xlarge"      = { gpus = 4, gpu = "L4", gbps = 40, efa_cards = 1 }
      "g6.16xlarge"      = { gpus = 1, gpu = "L4", gbps = 25, efa_cards = 1 }
      "g6.24xlarge"      = { gpus = 4, gpu = "L4", gbps = 50, efa_cards = 1 }
      "g6.48xlarge"      = { gpus = 8, gpu = "L4", gbps = 100, efa_cards = 1 }
      "p4d.24xlarge"     = { gpus = 8, gpu = "A100-40GB", gbps = 400, efa_cards = 4 }
      "p4de.24xlarge"    = { gpus = 8, gpu = "A100-80GB", gbps = 400, efa_cards = 4 }
      "p5.48xlarge"      = { gpus = 8, gpu = "H100-80GB", gbps = 3200, efa_cards = 32 }
      "p5e.48xlarge"     = { gpus = 8, gpu = "H200-141GB", gbps = 3200, efa_cards = 32 }
      "p5en.48xlarge"    = { gpus = 8, gpu = "H200-141GB", gbps = 3200, efa_cards = 16 }
      "p6-b200.48xlarge" = { gpus = 8, gpu = "B200", gbps = 3200, efa_cards = 8 }
    }
    gcp = {
      "a2-highgpu-1g"  = { gpus = 1, gpu = "A100-40GB", gbps = 24, efa_cards = 0 }
      "a2-highgpu-2g"  = { gpus = 2, gpu = "A100-40GB", gbps = 32, efa_cards = 0 }
      "a2-highgpu-4g"  = { gpus = 4, gpu = "A100-40GB", gbps = 50, efa_cards = 0 }
      "a2-highgpu-8g"  = { gpus = 8, gpu = "A100-40GB", gbps = 100, efa_cards = 0 }
      "a2-megagpu-16g" = { gpus = 16, gpu = "A100-40GB", gbps = 100, efa_cards = 0 }
      "a2-ultragpu-1g" = { gpus = 1, gpu = "A100-80GB", gbps = 24, efa_cards = 0 }
      "a2-ultragpu-2g" = { gpus = 2, gpu = "A100-80GB", gbps = 32, efa_cards = 0 }
      "a2-ultragpu-4g" = { gpus = 4, gpu = "A100-80GB", gbps = 50, efa_cards = 0 }
      "a2-ultragpu-8g" = { gpus = 8, gpu = "A100-80GB", gbps = 100, efa_cards = 0 }
      # The GPUs' own network cards (TCPX, RoCE) need networks that this module does not make.
      "a3-highgpu-8g"  = { gpus = 8, gpu = "H100-80GB", gbps = 200, efa_cards = 0 }
      "a3-megagpu-8g"  = { gpus = 8, gpu = "H100-80GB", gbps = 200, efa_cards = 0 }
      "g2-standard-4"  = { gpus = 1, gpu = "L4", gbps = 10, efa_cards = 0 }
      "g2-standard-8"  = { gpus = 1, gpu = "L4", gbps = 16, efa_cards = 0 }
      "g2-standard-12" = { gpus = 1, gpu = "L4", gbps = 16, efa_cards = 0 }
      "g2-standard-16" = { gpus = 1, gpu = "L4", gbps = 32, efa_cards = 0 }
      "g2-standard-24" = { gpus = 2, gpu = "L4", gbps = 32, efa_cards = 0 }
      "g2-standard-32" = { gpus = 1, gpu = "L4", gbps = 32, efa_cards = 0 }
      "g2-standard-48" = { gpus = 4, gpu = "L4", gbps = 50, efa_cards = 0 }
      "g2-standard-96" = { gpus = 8, gpu = "L4", gbps = 100, efa_cards = 0 }
    }
  }
  known_machines = local.machines[var.cloud]
  machine        = try(local.known_machines[var.machine_type], { gpus = null, gpu = null, gbps = null, efa_cards = 0 })
}
