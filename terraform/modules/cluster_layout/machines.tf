# What a machine type has: GPUs, network bandwidth in Gb/s, network cards that speak EFA. As the
# vendors' pages give it (AWS "Accelerated computing instances", GCP "GPU machine types"; read
# 2026-11). AWS's P2 and P3 are left out: today's Deep Learning AMI has no driver for them. The
# network cards of GCP's A3 that belong to its GPUs (TCPX, RoCE) need networks that the module
# does not make. hpctrain reads the same file.
locals {
  machines = {
    for row in csvdecode(file("${path.module}/machines.csv")) : row.machine_type => {
      gpus         = tonumber(row.gpus)
      gpu          = row.gpu
      network_gbps = tonumber(row.network_gbps)
      efa_cards    = tonumber(row.efa_cards)
    } if row.cloud == var.cloud
  }
  unknown = { gpus = null, gpu = null, network_gbps = null, efa_cards = 0 }
  machine = try(local.machines[var.machine_type], local.unknown)
}
