# Everything is computed, so every run plans alone.
variables {
  cloud             = "aws"
  name              = "demo"
  nodes             = 2
  machine_type      = "g5.12xlarge"
  zone              = "us-east-1a"
  private_addresses = ["10.42.0.10", "10.42.0.11"]
  head_address      = "198.51.100.7"
  ssh_folder        = "/keys/demo"
}

run "hostfile_has_private_addresses_and_gpus" {
  command = plan
  assert {
    condition     = output.hostfile == "10.42.0.10 slots=4 max_slots=4\n10.42.0.11 slots=4 max_slots=4\n"
    error_message = "hostfile: ${output.hostfile}"
  }
}

run "head_by_its_public_address_the_others_through_it" {
  command = plan
  assert {
    condition     = strcontains(output.ssh_config, "Host demo-0 10.42.0.10\n  HostName 198.51.100.7\nHost demo-1 10.42.0.11\n  HostName 10.42.0.11\n  ProxyJump demo-0\n")
    error_message = output.ssh_config
  }
  assert {
    condition     = strcontains(output.ssh_config, "IdentityFile \"/keys/demo/id_ed25519\"") && strcontains(output.ssh_config, "UserKnownHostsFile \"/keys/demo/known_hosts\"") && strcontains(output.ssh_config, "IdentitiesOnly yes")
    error_message = output.ssh_config
  }
}

run "without_nodes_yet_there_are_no_hosts" {
  command = plan
  variables {
    private_addresses = []
    head_address      = null
  }
  assert {
    condition     = output.hostfile == "" && length(output.node_names) == 2
    error_message = "hostfile: ${output.hostfile}"
  }
}

run "efa_cards_come_from_the_machine_type" {
  command = plan
  variables {
    machine_type = "p4d.24xlarge"
  }
  assert {
    condition     = output.efa_cards == 4 && output.gpus_per_node == 8 && output.network_gbps == 400
    error_message = "cards: ${output.efa_cards}"
  }
}

run "an_n1_takes_the_gpus_that_it_is_given" {
  command = plan
  variables {
    cloud         = "gcp"
    zone          = "us-central1-a"
    machine_type  = "n1-standard-8"
    gpu_type      = "nvidia-tesla-t4"
    gpus_per_node = 2
  }
  assert {
    condition     = output.gpus_per_node == 2
    error_message = "GPUs: ${output.gpus_per_node}"
  }
}

run "an_unknown_type_counts_once_its_gpus_are_given" {
  command = plan
  variables {
    machine_type  = "p9.48xlarge"
    gpus_per_node = 8
  }
  assert {
    condition     = output.gpus_per_node == 8 && output.efa_cards == 0
    error_message = "GPUs: ${output.gpus_per_node}"
  }
}

run "an_unknown_type_is_refused" {
  command = plan
  variables {
    machine_type = "p9.48xlarge"
  }
  expect_failures = [var.machine_type]
}

run "another_number_of_gpus_is_refused" {
  command = plan
  variables {
    gpus_per_node = 5
  }
  expect_failures = [output.gpus_per_node]
}

run "an_n1_without_gpus_is_refused" {
  command = plan
  variables {
    cloud        = "gcp"
    zone         = "us-central1-a"
    machine_type = "n1-standard-8"
  }
  expect_failures = [var.gpu_type]
}

run "gpus_are_not_attached_to_a_type_that_has_some" {
  command = plan
  variables {
    gpu_type = "nvidia-tesla-t4"
  }
  expect_failures = [var.gpu_type]
}

run "a_zone_of_another_cloud_is_refused" {
  command = plan
  variables {
    zone = "us-central1-a"
  }
  expect_failures = [var.zone]
}

run "an_unknown_cloud_is_refused" {
  command = plan
  variables {
    cloud = "azure"
  }
  expect_failures = [var.cloud]
}

run "user_data_does_not_depend_on_the_number_of_nodes" {
  command = plan
  variables {
    nodes             = 3
    private_addresses = ["10.42.0.10", "10.42.0.11", "10.42.0.12"]
  }
  assert {
    condition     = output.cloud_init == run.hostfile_has_private_addresses_and_gpus.cloud_init
    error_message = "a third node changes what the first two were made from"
  }
}

run "idle_shutdown_is_on_unless_it_is_zero" {
  command = plan
  variables {
    idle_shutdown_hours = 0
  }
  assert {
    condition     = !strcontains(output.cloud_init, "hpctrain-idle") && strcontains(run.hostfile_has_private_addresses_and_gpus.cloud_init, "hpctrain-idle.timer")
    error_message = output.cloud_init
  }
}

run "user_data_is_one_yaml_document_within_the_limit" {
  command = plan
  variables {
    shared_disk_source = "10.42.0.5:/shared"
  }
  assert {
    condition     = length(yamldecode(output.cloud_init).write_files) >= 5 && yamldecode(output.cloud_init).runcmd[1][2] == "10.42.0.5:/shared"
    error_message = output.cloud_init
  }
  assert {
    condition     = length(base64encode(output.cloud_init)) < 16384
    error_message = "EC2 takes 16 KB, got ${length(base64encode(output.cloud_init))} bytes in base64"
  }
}
