# The same for every cloud: aws_gpu_cluster and gcp_gpu_cluster hold this very file.

variable "name" {
  description = "The cluster's name; every resource's name begins with it."
  type        = string
  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", var.name))
    error_message = "name: got '${var.name}'; expected lower-case letters, digits and '-', a letter first, at most 32 of them."
  }
}

variable "nodes" {
  description = "How many nodes. More add nodes and replace none."
  type        = number
  default     = 2
  validation {
    condition     = var.nodes >= 1 && var.nodes <= 256 && floor(var.nodes) == var.nodes
    error_message = "nodes: got ${var.nodes}; expected a whole number from 1 to 256."
  }
}

variable "machine_type" {
  description = "Machine type of every node, such as g5.12xlarge or a2-highgpu-8g."
  type        = string
}

variable "gpu_type" {
  description = "GPUs to attach where the machine type has none (GCP's n1): nvidia-tesla-t4 …"
  type        = string
  default     = null
}

variable "gpus_per_node" {
  description = "GPUs of a node; null for what the machine type has, or 1 with gpu_type."
  type        = number
  default     = null
  validation {
    condition     = var.gpus_per_node == null || contains([1, 2, 4, 8, 16], coalesce(var.gpus_per_node, 1))
    error_message = "gpus_per_node: got ${coalesce(var.gpus_per_node, 0)}; expected 1, 2, 4, 8 or 16."
  }
}

variable "zone" {
  description = "The zone of all nodes, such as us-east-1a or us-central1-a."
  type        = string
}

variable "spot" {
  description = "Cheaper machines that the cloud may take back at any time."
  type        = bool
  default     = false
}

variable "own_network" {
  description = "Make a network for the cluster; false takes the account's default one."
  type        = bool
  default     = true
}

variable "network_cidr" {
  description = "Addresses of the cluster's own network."
  type        = string
  default     = "10.42.0.0/16"
  validation {
    condition     = can(cidrhost(var.network_cidr, 0)) && can(regex("/(1[6-9]|2[0-7])$", var.network_cidr))
    error_message = "network_cidr: got '${var.network_cidr}'; expected an IPv4 range from /16 to /27 such as 10.42.0.0/16."
  }
}

variable "fast_network" {
  description = "EFA where the machine type has it (AWS), gVNIC (GCP)."
  type        = bool
  default     = true
}

variable "compact_placement" {
  description = "Place the nodes close together, where the machine type can be."
  type        = bool
  default     = true
}

variable "ssh_from_cidrs" {
  description = "From where ssh is let in."
  type        = list(string)
  validation {
    condition     = length(var.ssh_from_cidrs) > 0 && alltrue([for cidr in var.ssh_from_cidrs : can(cidrhost(cidr, 0))])
    error_message = "ssh_from_cidrs: got [${join(", ", var.ssh_from_cidrs)}]; expected at least one range such as 198.51.100.7/32."
  }
  validation {
    # Two halves of the internet are all of it, so more than /0 is refused.
    condition     = var.ssh_from_anywhere || alltrue([for cidr in var.ssh_from_cidrs : try(tonumber(split("/", cidr)[1]), 0) >= (strcontains(cidr, ":") ? 16 : 8)])
    error_message = "ssh_from_cidrs: opens ssh to everyone, got [${join(", ", var.ssh_from_cidrs)}]; expected your own address, such as 198.51.100.7/32, and no range wider than /8 (IPv6: /16). If you mean it: ssh_from_anywhere = true."
  }
}

variable "ssh_from_anywhere" {
  description = "Allow ranges wider than /8 (IPv6: /16) in ssh_from_cidrs."
  type        = bool
  default     = false
}

variable "ssh_public_key" {
  description = "The cluster's public key; its private half stays on the user's machine."
  type        = string
  validation {
    condition     = can(regex("^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp[0-9]+) [A-Za-z0-9+/=]+( |$)", var.ssh_public_key))
    error_message = "ssh_public_key: is no OpenSSH public key; expected one line such as 'ssh-ed25519 AAAA… name'."
  }
}

variable "ssh_folder" {
  description = "The folder on the user's machine with id_ed25519 and known_hosts, for ssh_config."
  type        = string
  default     = "."
}

variable "address_quota" {
  description = "AWS: Elastic IPs that the account may have (EC2-VPC Elastic IPs in Service Quotas)."
  type        = number
  default     = 5
}

variable "disk_gb" {
  description = "Size of each node's own disk, in GB."
  type        = number
  default     = 200
  validation {
    condition     = var.disk_gb >= 100 && var.disk_gb <= 16384
    error_message = "disk_gb: got ${var.disk_gb}; expected 100 to 16384: the image and torch alone take 80."
  }
}

variable "disk_kms_key" {
  description = "Key that encrypts the disks; null for the cloud's own. They are always encrypted."
  type        = string
  default     = null
}

variable "shared_disk" {
  description = "A folder /shared that all nodes see: EFS (AWS) or Filestore (GCP)."
  type        = bool
  default     = false
}

variable "image" {
  description = "Image of the nodes; null for the cloud's newest deep learning image on Ubuntu 22.04."
  type        = string
  default     = null
}

variable "idle_shutdown_hours" {
  description = "Idle hours after which a node turns itself off; 0 for never."
  type        = number
  default     = 2
  validation {
    condition     = var.idle_shutdown_hours >= 0 && var.idle_shutdown_hours <= 168
    error_message = "idle_shutdown_hours: got ${var.idle_shutdown_hours}; expected 0 (never) to 168."
  }
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

variable "labels" {
  description = "Labels (GCP) or tags (AWS) of everything that is made."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for key, value in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))])
    error_message = "labels: expected lower-case letters, digits, '_' and '-' alone, in names and values: GCP allows no more."
  }
}
