output "hostfile" {
  description = "For hpctrain run --hosts and mpirun."
  value       = module.cluster.hostfile
}

output "ssh_config" {
  description = "For ssh -F."
  value       = module.cluster.ssh_config
}
