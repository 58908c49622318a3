"""A test stand-in for registry.terraform.io/hashicorp/google: a plugin for a real Terraform.

It speaks plugin protocol 6 (PyPI `tf`), carries the published schema (schema.json, see
generate_schema.py) and makes up what Google would answer. So Terraform itself finds unknown
arguments, wrong types, missing and surplus blocks. It cannot know which arguments exclude each
other, quotas, or what a zone offers: no test that passes here says that Google would agree.

What was made is kept in $GOOGLE_STANDIN_FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import grpc
import tf.provider
from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc as rpc
from tf.runner import run_provider
from tf.types import Unknown

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from cloud import Cloud, Fill, Refused  # noqa: E402
from values import block_message, decode, encode, settled, with_unknowns  # noqa: E402

SCHEMA = json.loads((HERE / "schema.json").read_text())
RESOURCES, DATA = SCHEMA["resources"], SCHEMA["data"]
# A change of these makes a new thing, as with the real provider.
REPLACES = {
    "google_compute_address": ("name", "region", "network_tier"),
    "google_compute_firewall": ("name", "network"),
    "google_compute_instance": ("name", "zone", "guest_accelerator", "boot_disk"),
    "google_compute_network": ("name", "auto_create_subnetworks"),
    "google_compute_resource_policy": ("name", "region", "group_placement_policy"),
    "google_compute_subnetwork": ("name", "region", "network"),
    "google_filestore_instance": ("name", "location", "tier"),
    "google_service_account": ("account_id",),
}
# Checked by the real provider itself, and not in the published schema.
CHOICES = {
    ("google_compute_instance", "scheduling", "on_host_maintenance"): ("MIGRATE", "TERMINATE"),
    ("google_compute_instance", "scheduling", "provisioning_model"): ("STANDARD", "SPOT"),
    ("google_compute_instance", "network_interface", "nic_type"): ("VIRTIO_NET", "GVNIC"),
}
configured: dict[str, Any] = {}


def cloud() -> Cloud:
    folder = Path(os.environ["GOOGLE_STANDIN_FOLDER"])
    return Cloud(folder, configured.get("project") or "standin-project")


def refusal(text: str, *steps: str | int) -> pb.Diagnostic:
    """Return an error, at the place in the configuration that `steps` lead to."""
    path = [
        pb.AttributePath.Step(element_key_int=step)
        if isinstance(step, int)
        else pb.AttributePath.Step(attribute_name=step)
        for step in steps
    ]
    where = pb.AttributePath(steps=path)
    return pb.Diagnostic(severity=pb.Diagnostic.ERROR, summary=text, attribute=where)


class StandIn(rpc.ProviderServicer):
    """The calls that Terraform makes, in the order of their first use."""

    def __init__(self, app: object) -> None: ...

    def GetMetadata(self, request, context):
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "ask for the schema")

    def GetProviderSchema(self, request, context):
        def schema(block: dict[str, Any]) -> pb.Schema:
            return pb.Schema(version=0, block=block_message(block))

        return pb.GetProviderSchema.Response(
            provider=schema(SCHEMA["provider"]),
            resource_schemas={name: schema(block) for name, block in RESOURCES.items()},
            data_source_schemas={name: schema(block) for name, block in DATA.items()},
            server_capabilities=pb.ServerCapabilities(plan_destroy=False),
        )

    def ValidateProviderConfig(self, request, context):
        return pb.ValidateProviderConfig.Response()

    def ConfigureProvider(self, request, context):
        given = decode(request.config).items()
        configured.update({name: v for name, v in given if v is not None and v is not Unknown})
        by_default = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        if configured.get("credentials", by_default) == "wrong":
            text = "could not find default credentials (stand-in)"
            return pb.ConfigureProvider.Response(diagnostics=[refusal(text)])
        return pb.ConfigureProvider.Response()

    def ValidateResourceConfig(self, request, context):
        config, found = decode(request.config), []
        for (kind, block, leaf), allowed in CHOICES.items():
            for index, value in enumerate(
                config.get(block) or [] if kind == request.type_name else []
            ):
                got = value.get(leaf) if isinstance(value, dict) else None
                if got not in (None, Unknown, *allowed):
                    text = f"{block}.{leaf}: got {got}; expected one of {', '.join(allowed)}"
                    found.append(refusal(text, block, index, leaf))
        return pb.ValidateResourceConfig.Response(diagnostics=found)

    def ValidateDataResourceConfig(self, request, context):
        return pb.ValidateDataResourceConfig.Response()

    def UpgradeResourceState(self, request, context):
        state = json.loads(request.raw_state.json)
        return pb.UpgradeResourceState.Response(upgraded_state=encode(state))

    def ReadDataSource(self, request, context):
        config, block = decode(request.config), DATA[request.type_name]
        fill = Fill(request.type_name, config, configured.get("project") or "standin-project", 1)
        state = settled(block, with_unknowns(block, config), fill)
        return pb.ReadDataSource.Response(state=encode(state))

    def ReadResource(self, request, context):
        state = decode(request.current_state)
        with cloud() as there:
            known = state is not None and there.has(state["id"])
        return pb.ReadResource.Response(new_state=encode(state if known else None))

    def PlanResourceChange(self, request, context):
        block = RESOURCES[request.type_name]
        before, after = decode(request.prior_state), decode(request.proposed_new_state)
        if after is None:
            return pb.PlanResourceChange.Response(planned_state=request.proposed_new_state)
        if before is None:
            after = with_unknowns(block, after)
            return pb.PlanResourceChange.Response(planned_state=encode(after))
        replaces = [
            pb.AttributePath(steps=[pb.AttributePath.Step(attribute_name=name)])
            for name in REPLACES[request.type_name]
            if before.get(name) != after.get(name)
        ]
        return pb.PlanResourceChange.Response(
            planned_state=encode(after), requires_replace=replaces
        )

    def ApplyResourceChange(self, request, context):
        block = RESOURCES[request.type_name]
        before, after = decode(request.prior_state), decode(request.planned_state)
        try:
            with cloud() as there:
                if after is None:
                    there.remove(before["id"])
                elif before is None:
                    after = settled(block, after, there.add(request.type_name, after))
                else:
                    after = settled(block, after, lambda path: None)
        except Refused as refused:
            return pb.ApplyResourceChange.Response(
                new_state=request.prior_state, diagnostics=[refusal(str(refused))]
            )
        return pb.ApplyResourceChange.Response(new_state=encode(after))

    def StopProvider(self, request, context):
        return pb.StopProvider.Response()


class App:
    """What the runner asks for the provider's name."""

    def full_name(self) -> str:
        return "registry.terraform.io/hashicorp/google"


if __name__ == "__main__":
    tf.provider.ProviderServicer = StandIn
    run_provider(App(), sys.argv)
