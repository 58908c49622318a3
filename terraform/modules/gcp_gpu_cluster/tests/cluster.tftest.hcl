# No cloud and no account: a mock makes up what Google would answer. Each run starts the provider
# anew, which takes seconds, so one run holds all that one set of variables shows.
mock_provider "google" {
  mock_resource "google_filestore_instance" {
    defaults = { networks = { ip_addresses = ["10.99.0.2"] } }
  }
}

variables {
  name           = "demo"
  machine_type   = "n1-standard-8"
  gpu_type       = "nvidia-tesla-t4"
  zone           = "us-central1-a"
  ssh_from_cidrs = ["198.51.100.7/32"]
  ssh_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPublicHalfOnly demo"
}

run "two_nodes" {
  assert {
    condition     = length(google_compute_instance.node) == 2 && output.gpus_per_node == 1
    error_message = "nodes: ${length(google_compute_instance.node)}"
  }
  assert {
    condition     = length(split("\n", trimspace(output.hostfile))) == 2 && strcontains(output.ssh_config, "ProxyJump demo-0")
    error_message = "${output.hostfile}\n${output.ssh_config}"
  }
  assert {
    condition     = google_compute_instance.node[0].guest_accelerator[0].count == 1 && google_compute_instance.node[0].guest_accelerator[0].type == "nvidia-tesla-t4"
    error_message = "an n1 gets its GPU"
  }
  assert {
    condition     = google_compute_instance.node[0].scheduling[0].on_host_maintenance == "TERMINATE" && google_compute_instance.node[0].network_interface[0].nic_type == "GVNIC"
    error_message = "a machine with GPUs cannot be moved while it runs"
  }

  # ssh is open to the given range alone, everything else to the nodes' own account
  assert {
    condition     = google_compute_firewall.ssh["ipv4"].source_ranges == toset(["198.51.100.7/32"]) && keys(google_compute_firewall.ssh) == ["ipv4"]
    error_message = jsonencode(google_compute_firewall.ssh)
  }
  assert {
    condition     = google_compute_firewall.inside.source_service_accounts == toset([google_service_account.node.email])
    error_message = "all traffic is let in from the nodes, and from nowhere else"
  }

  # the cluster's key and no other; no rights beyond writing logs and metrics
  assert {
    condition     = google_compute_instance.node[0].metadata["ssh-keys"] == "ubuntu:${var.ssh_public_key}" && google_compute_instance.node[0].metadata["enable-oslogin"] == "FALSE" && google_compute_instance.node[0].metadata["block-project-ssh-keys"] == "TRUE"
    error_message = "keys of the project must not open the nodes"
  }
  assert {
    condition     = alltrue([for scope in google_compute_instance.node[0].service_account[0].scopes : endswith(scope, ".write")])
    error_message = "scopes: ${join(", ", google_compute_instance.node[0].service_account[0].scopes)}"
  }
  assert {
    condition     = google_compute_instance.node[0].shielded_instance_config[0].enable_vtpm && google_compute_instance.node[0].shielded_instance_config[0].enable_integrity_monitoring
    error_message = "the nodes must be shielded"
  }
  assert {
    condition     = !google_compute_instance.node[0].allow_stopping_for_update
    error_message = "a node that trains must not be turned off for a change"
  }
  assert {
    condition     = length(google_compute_resource_policy.close) == 0
    error_message = "Google has no compact placement for n1"
  }
}

run "a_third_node_changes_nothing_else" {
  variables {
    nodes = 3
  }
  assert {
    condition     = google_compute_instance.node[0].instance_id == run.two_nodes.nodes[0].id && google_compute_instance.node[1].instance_id == run.two_nodes.nodes[1].id
    error_message = "a node was replaced"
  }
}

run "a2_close_together_on_spot" {
  variables {
    machine_type = "a2-highgpu-8g"
    gpu_type     = null
    spot         = true
    shared_disk  = true
    own_network  = false
  }
  assert {
    condition     = output.gpus_per_node == 8 && length(google_compute_instance.node[0].guest_accelerator) == 0
    error_message = "an A2 brings its GPUs"
  }
  assert {
    condition     = google_compute_resource_policy.close[0].group_placement_policy[0].vm_count == null || google_compute_resource_policy.close[0].group_placement_policy[0].vm_count == 0
    error_message = "a policy with a number of nodes would replace them all when one joins"
  }
  assert {
    condition     = google_compute_instance.node[0].scheduling[0].provisioning_model == "SPOT" && !google_compute_instance.node[0].scheduling[0].automatic_restart
    error_message = "spot"
  }
  assert {
    condition     = length(google_compute_network.own) == 0 && length(google_filestore_instance.shared) == 1
    error_message = "the default network, and Filestore"
  }
}

run "ssh_from_everywhere_is_refused" {
  command = plan
  variables {
    ssh_from_cidrs = ["198.51.100.7/32", "::/0"]
  }
  expect_failures = [var.ssh_from_cidrs]
}

run "a_quarter_of_everywhere_is_refused" {
  command = plan
  variables {
    ssh_from_cidrs = ["2000::/3"]
  }
  expect_failures = [var.ssh_from_cidrs]
}

run "ssh_from_everywhere_by_name" {
  command = plan
  variables {
    ssh_from_cidrs    = ["0.0.0.0/0", "::/0"]
    ssh_from_anywhere = true
  }
  assert {
    condition     = google_compute_firewall.ssh["ipv6"].source_ranges == toset(["::/0"])
    error_message = "a rule holds one kind of address"
  }
}
