resource "aws_instance" "node" {
  count = var.nodes
  launch_template {
    id = aws_launch_template.node.id
    # A change of the template is for nodes to come: it replaces none.
    version = "$Latest"
  }
  tags       = merge(local.tags, { Name = module.layout.node_names[count.index] })
  depends_on = [aws_default_route_table.own] # the first boot installs from the internet
}

# A node that had turned itself off is started again by the next `up`.
resource "aws_ec2_instance_state" "on" {
  count       = var.spot ? 0 : var.nodes
  instance_id = aws_instance.node[count.index].id
  state       = "running"
}
