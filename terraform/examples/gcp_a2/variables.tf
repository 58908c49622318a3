variable "ssh_public_key" {
  description = "Public key of a pair that you made with: ssh-keygen -t ed25519 -f id_ed25519"
  type        = string
}

variable "ssh_from_cidrs" {
  description = "Your own address, such as 198.51.100.7/32."
  type        = list(string)
}
