variable "cloud" {
  description = "Whose machine types these are: aws or gcp."
  type        = string
  validation {
    condition     = contains(["aws", "gcp"], var.cloud)
    error_message = "cloud: got '${var.cloud}'; expected aws or gcp."
  }
}

variable "name" {
  description = "The cluster's name; node names begin with it."
  type        = string
}

variable "nodes" {
  description = "How many nodes."
  type        = number
}

variable "machine_type" {
  description = "The cloud's machine type."
  type        = string
  validation {
    condition     = var.gpus_per_node != null || contains(keys(local.machines), var.machine_type) || startswith(var.machine_type, "n1-")
    error_message = "machine_type: unknown on ${var.cloud}, got '${var.machine_type}'; expected one of ${join(", ", keys(local.machines))}${var.cloud == "gcp" ? ", n1-*" : ""}. For another type give gpus_per_node as well."
  }
}

variable "zone" {
  description = "The zone of all nodes."
  type        = string
  validation {
    condition     = can(regex({ aws = "^[a-z]{2}(-[a-z]+)+-[0-9]+(-[a-z]+-[0-9]+)?[a-z]$", gcp = "^[a-z]+-[a-z]+[0-9]+-[a-z]$" }[var.cloud], var.zone))
    error_message = "zone: no zone of ${var.cloud}, got '${var.zone}'; expected one like ${var.cloud == "aws" ? "us-east-1a" : "us-central1-a"}."
  }
}

variable "gpu_type" {
  description = "GPUs to attach, for types that come without (GCP's n1)."
  type        = string
  default     = null
  validation {
    condition     = var.gpu_type == null || startswith(var.machine_type, "n1-")
    error_message = "gpu_type: ${var.machine_type} brings its own GPUs, got '${coalesce(var.gpu_type, "-")}'; expected none. Only GCP's n1 types take a gpu_type."
  }
  validation {
    condition     = var.gpu_type != null || !startswith(var.machine_type, "n1-")
    error_message = "gpu_type: ${var.machine_type} comes without GPUs, got no gpu_type; expected one such as nvidia-tesla-t4."
  }
}

variable "gpus_per_node" {
  description = "GPUs, and so slots, of a node; null for what the machine type has."
  type        = number
  default     = null
}

variable "private_addresses" {
  description = "The nodes' addresses in the cluster's own network, node 0 first."
  type        = list(string)
  default     = []
}

variable "head_address" {
  description = "Where node 0, the head, is reached from outside."
  type        = string
  default     = null
}

variable "ssh_user" {
  description = "The nodes' user with the right to become root."
  type        = string
  default     = "ubuntu"
}

variable "ssh_folder" {
  description = "The folder on the user's machine with the cluster's key and known_hosts."
  type        = string
  default     = "."
}

variable "shared_disk_source" {
  description = "What nodes mount at /shared by NFS, as host:/path; null for nothing."
  type        = string
  default     = null
}

variable "idle_shutdown_hours" {
  description = "Idle hours after which a node turns itself off; 0 for never."
  type        = number
  default     = 2
}

variable "python_requirements" {
  description = "Requirements that pip installs on every node."
  type        = list(string)
  default     = []
}

variable "python_constraints" {
  description = "Lines of the constraints file that pins them."
  type        = list(string)
  default     = []
}
