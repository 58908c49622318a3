# What a node does at its first boot. The text is the same for every node and does not depend
# on how many there are: so a cluster grows without touching the nodes that it has.
locals {
  cloud_init = templatefile("${path.module}/templates/cloud_init.yaml.tftpl", {
    ssh_user            = var.ssh_user
    shared_disk_source  = var.shared_disk_source
    idle_shutdown_hours = var.idle_shutdown_hours
    files = concat([
      {
        path    = "/usr/local/sbin/hpctrain-prepare-node"
        mode    = "0755"
        content = file("${path.module}/files/prepare_node.sh")
      },
      {
        path    = "/etc/hpctrain/requirements.txt"
        mode    = "0644"
        content = join("", [for line in var.python_requirements : "${line}\n"])
      },
      {
        path    = "/etc/hpctrain/constraints.txt"
        mode    = "0644"
        content = join("", [for line in var.python_constraints : "${line}\n"])
      },
      {
        # RDMA registers memory: with the usual limit NCCL fails over InfiniBand and EFA.
        path    = "/etc/security/limits.d/hpctrain.conf"
        mode    = "0644"
        content = "* soft memlock unlimited\n* hard memlock unlimited\n"
      },
      ], var.idle_shutdown_hours == 0 ? [] : [
      {
        path    = "/usr/local/sbin/hpctrain-idle-shutdown"
        mode    = "0755"
        content = file("${path.module}/files/idle_shutdown.py")
      },
      {
        path    = "/etc/systemd/system/hpctrain-idle.service"
        mode    = "0644"
        content = "[Unit]\nDescription=Turn the node off after ${var.idle_shutdown_hours} idle hours\n[Service]\nType=oneshot\nExecStart=/usr/local/sbin/hpctrain-idle-shutdown ${var.idle_shutdown_hours}\n"
      },
      {
        path    = "/etc/systemd/system/hpctrain-idle.timer"
        mode    = "0644"
        content = "[Unit]\nDescription=Look every five minutes whether the node idles\n[Timer]\nOnBootSec=5min\nOnUnitActiveSec=5min\n[Install]\nWantedBy=timers.target\n"
      },
    ])
  })
}
