resource "aws_instance" "node" {
  count = var.nodes
  launch_template {
    id      = aws_launch_template.node.id
    version = "$Latest"
  }
  # Here and not in the template: the provider keeps a hash of what comes from a template, and
  # then sees a change at every plan.
  user_data_base64 = terraform_data.as_created.output.user_data

  tags       = merge(local.tags, { Name = module.layout.node_names[count.index] })
  depends_on = [aws_default_route_table.own] # the first boot installs from the internet
  lifecycle {
    ignore_changes = [launch_template] # a change of it is for nodes to come, and replaces none
  }
}

# A node that had turned itself off is started again by the next `up`.
resource "aws_ec2_instance_state" "on" {
  count       = var.spot ? 0 : var.nodes
  instance_id = aws_instance.node[count.index].id
  state       = "running"
}
