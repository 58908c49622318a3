# AWS's Deep Learning AMI: NVIDIA driver, CUDA, EFA and its NCCL plugin are in it.
data "aws_ssm_parameter" "image" {
  count = var.image == null ? 1 : 0
  name  = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
}

data "aws_ami" "image" {
  owners = ["amazon", "self", "aws-marketplace"]
  filter {
    name   = "image-id"
    values = [coalesce(var.image, one(data.aws_ssm_parameter.image[*].insecure_value))]
  }
}

# "Latest" moves on. A cluster keeps what its first nodes were made from, so that a node that
# joins later is the same, and no node is replaced because AWS has published a new image.
resource "terraform_data" "as_created" {
  input = {
    image_id         = data.aws_ami.image.id
    root_device_name = data.aws_ami.image.root_device_name
    user_data        = base64encode(module.layout.cloud_init)
  }
  lifecycle {
    ignore_changes = [input]
  }
}
