"""A local server that answers as AWS does: moto, with what it lacks for clusters of GPUs.

Added: AWS's Deep Learning image with its public parameter, placement groups, descriptions on
rules between groups, the kind of a network interface; a template's tags stay its own. What moto
does not have: machines. Nothing boots, and no ssh answers.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import amis
from moto.ec2.models.instances import Instance
from moto.ec2.models.launch_templates import LaunchTemplateBackend
from moto.ec2.models.security_groups import SecurityGroupRule
from moto.ec2.responses import EC2Response
from moto.server import ThreadedMotoServer
from moto.ssm import models as ssm

IMAGE = "ami-0dead0beef0000001"
IMAGE_PARAMETER = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
)
_parameters = ssm.ParameterDict._check_loading_status
_run_instances = EC2Response.run_instances
_terminate = Instance.terminate
_create_interface = EC2Response.create_network_interface
_create_template = LaunchTemplateBackend.create_launch_template


@contextmanager
def aws_server() -> Iterator[str]:
    """Have a server for the length of a block; give its address."""
    _install()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class Failures:
    """Calls that are to fail: "RunInstances" → the error's code."""

    calls: dict[str, str] = {}  # noqa: RUF012 - one for the whole server


def _install() -> None:
    if not any(image["ami_id"] == IMAGE for image in amis.AMIS):
        amis.AMIS.append(_image())
    ssm.ParameterDict._check_loading_status = _with_image_parameter
    EC2Response.create_placement_group = _create_placement_group
    EC2Response.describe_placement_groups = _describe_placement_groups
    EC2Response.delete_placement_group = _delete_placement_group
    EC2Response.run_instances = _run_in_group
    EC2Response.create_network_interface = _create_interface_of_kind
    LaunchTemplateBackend.create_launch_template = _create_template_apart_from_its_tags
    Instance.terminate = _terminate_and_let_go
    SecurityGroupRule.description = property(
        lambda rule: (
            rule.ip_range.get("Description") or (rule.source_group or {}).get("Description")
        )
    )


def _image() -> dict[str, Any]:
    return {
        "ami_id": IMAGE,
        "name": "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) (made up)",
        "description": "made up",
        "owner_id": "898082745236",
        "owner_alias": "amazon",
        "public": True,
        "virtualization_type": "hvm",
        "architecture": "x86_64",
        "state": "available",
        "platform": None,
        "image_type": "machine",
        "hypervisor": "xen",
        "root_device_name": "/dev/sda1",
        "root_device_type": "ebs",
        "sriov": "simple",
        "image_location": "amazon/made-up",
        "creation_date": "2026-01-01T00:00:00.000Z",
    }


def _with_image_parameter(self, key: Any) -> None:
    _parameters(self, key)
    if str(key) == IMAGE_PARAMETER and not dict.__contains__(self, key):
        parameter = ssm.Parameter(
            account_id=self.account_id, name=key, value=IMAGE, parameter_type="String",
            description=None, allowed_pattern=None, keyid=None, last_modified_date=0, version=1,
            data_type="text",
        )  # fmt: skip
        dict.__setitem__(self, key, [parameter])


def _groups(backend: Any) -> dict[str, dict[str, Any]]:
    return backend.__dict__.setdefault("_placement_groups", {})


def _described(self, group: dict[str, Any]) -> dict[str, Any]:
    tags = self.ec2_backend.describe_tags({"resource-id": [group["GroupId"]]})
    return {**group, "Tags": [{"Key": tag["key"], "Value": tag["value"]} for tag in tags]}


def _unknown_group(name: str) -> EC2ClientError:
    text = f"The Placement Group '{name}' is unknown."
    return EC2ClientError("InvalidPlacementGroup.Unknown", text)


def _create_placement_group(self) -> ActionResult:
    name = self._get_param("GroupName")
    if name in _groups(self.ec2_backend):
        text = f"The placement group '{name}' already exists."
        raise EC2ClientError("InvalidPlacementGroup.Duplicate", text)
    arn = f"arn:aws:ec2:{self.region}:{self.current_account}:placement-group/{name}"
    group = {
        "GroupName": name,
        "State": "available",
        "Strategy": self._get_param("Strategy", "cluster"),
        "GroupId": "pg-0" + secrets.token_hex(8),
        "GroupArn": arn,
    }
    _groups(self.ec2_backend)[name] = group
    if tags := self._parse_tag_specification().get("placement-group", {}):
        self.ec2_backend.create_tags([group["GroupId"]], tags)
    return ActionResult({"PlacementGroup": _described(self, group)})


def _describe_placement_groups(self) -> ActionResult:
    names, ids = self._get_param("GroupNames", []), self._get_param("GroupIds", [])
    known = _groups(self.ec2_backend)
    for name in names:
        if name not in known:
            raise _unknown_group(name)
    found = [
        _described(self, group)
        for name, group in known.items()
        if (not names or name in names) and (not ids or group["GroupId"] in ids)
    ]
    return ActionResult({"PlacementGroups": found})


def _delete_placement_group(self) -> ActionResult:
    name = self._get_param("GroupName")
    for reservation in self.ec2_backend.reservations.values():
        for each in reservation.instances:
            if each.placement.group_name == name and each._state.name != "terminated":
                text = f"The placement group {name} is in use."
                raise EC2ClientError("InvalidPlacementGroup.InUse", text)
    if _groups(self.ec2_backend).pop(name, None) is None:
        raise _unknown_group(name)
    return ActionResult({})


def _run_in_group(self) -> Any:
    if code := Failures.calls.get("RunInstances"):
        raise EC2ClientError(code, "made to fail by a test")
    result = _run_instances(self)
    name = self._get_param("Placement.GroupName")
    if name:
        if name not in _groups(self.ec2_backend):
            raise _unknown_group(name)
        for each in result.result.instances:
            each.placement.group_name = name
    return result


def _create_template_apart_from_its_tags(self, name, description, template_data, tag_spec):
    """A template's own tags are none of the tags that it gives to instances."""
    specs = template_data.get("TagSpecifications", [])
    kept = [each for each in specs if each.get("ResourceType") != "launch-template"]
    return _create_template(
        self, name, description, {**template_data, "TagSpecifications": kept}, tag_spec
    )


def _terminate_and_let_go(self) -> Any:
    """A terminated instance lets go of interfaces that were made outside it."""
    before = _terminate(self)
    for card in list(self.nics.values()):
        if not card.delete_on_termination:
            card.instance, card.attachment_id, card.status = None, None, "available"
    return before


def _create_interface_of_kind(self) -> Any:
    result = _create_interface(self)
    if kind := self._get_param("InterfaceType"):
        interface = result.result
        interface = interface["NetworkInterface"] if isinstance(interface, dict) else interface
        interface.interface_type = kind
    return result
