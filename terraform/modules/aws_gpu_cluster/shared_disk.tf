# One folder for all nodes, for checkpoints and data.
resource "aws_efs_file_system" "shared" {
  count          = var.shared_disk ? 1 : 0
  creation_token = "${var.name}-shared"
  encrypted      = true
  kms_key_id     = var.disk_kms_key
  tags           = merge(local.tags, { Name = "${var.name}-shared" })
}

resource "aws_efs_mount_target" "shared" {
  count           = var.shared_disk ? 1 : 0
  file_system_id  = aws_efs_file_system.shared[0].id
  subnet_id       = local.subnet_id
  security_groups = [aws_security_group.nodes.id] # NFS is traffic inside the group
}
