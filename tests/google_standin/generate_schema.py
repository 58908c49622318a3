"""Write schema.json: the published schema of the google resources that our module uses.

usage: python generate_schema.py cdktn_provider_google-21.1.0-py3-none-any.whl

The google provider's binary is in no package registry. Its schema is: the CDK Terrain bindings
(PyPI cdktn-provider-google, MPL-2.0) are generated from it. They keep every argument with its
type, which blocks there are, how often, and what is required. They do not keep which arguments
exclude each other, which a change replaces, or whether an optional one may be filled in by
Google: here each may.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

RESOURCES = (
    "compute_address", "compute_firewall", "compute_instance", "compute_network",
    "compute_resource_policy", "compute_subnetwork", "filestore_instance", "service_account",
)  # fmt: skip
DATA_SOURCES = ("compute_image", "compute_network", "compute_subnetwork")
SCALARS = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic"}
GETTERS = {
    "getStringAttribute": "string",
    "getNumberAttribute": "number",
    "getBooleanAttribute": "bool",
    "getListAttribute": ["list", "string"],
    "getNumberListAttribute": ["list", "number"],
    "getStringMapAttribute": ["map", "string"],
    "getBooleanMapAttribute": ["map", "bool"],
}
_ATTRIBUTE = re.compile(
    r"(\w+): \{\s*value: (.*?),\s*isBlock: (true|false),\s*"
    r'type: "(\w+)",\s*storageClassType: "(\w+)",\s*\}',
    re.S,
)
_COMPUTED = re.compile(
    r"// (\w+) - computed: true, optional: false, required: false\s*\n\s*(.*?;)", re.S
)


class Module:
    """The generated JavaScript of one resource, and its TypeScript declarations."""

    def __init__(self, package: tarfile.TarFile, folder: str) -> None:
        def read(name: str) -> str:
            member = package.extractfile(f"package/lib/{folder}/{name}")
            assert member is not None
            return member.read().decode()

        self.code = read("index.js")
        self.declarations = read("index.d.ts")

    def top(self, name: str) -> dict[str, Any]:
        """Return the schema of the resource whose class is `name`."""
        body = self._class(name)
        mapping = body[body.index("synthesizeHclAttributes") :]
        return self._block(mapping, f"{name}Config", body)

    def _block(self, mapping: str, interface: str, reference: str) -> dict[str, Any]:
        required = self._required(interface)
        attributes: dict[str, Any] = {}
        blocks: dict[str, Any] = {}
        for name, value, is_block, kind, storage in _ATTRIBUTE.findall(mapping):
            found = re.search(r"(?:struct\.|this\._)(\w+)(?:\.internalValue)?\)?$", value.strip())
            needed = required[found[1]] if found else False
            if is_block == "true":
                blocks[name] = self._nested(value, kind, needed)
            else:
                attributes[name] = {
                    "type": _attribute_type(kind, storage),
                    "required": needed,
                    "optional": not needed,
                    "computed": not needed,
                }
        for name, computed_type in self._computed(reference).items():
            if name not in attributes and name not in blocks:
                attributes[name] = {
                    "type": computed_type,
                    "required": False,
                    "optional": False,
                    "computed": True,
                }
        return {"attributes": attributes, "blocks": blocks}

    def _nested(self, value: str, kind: str, needed: bool) -> dict[str, Any]:
        function = re.search(r"(\w+)ToHclTerraform", value)[1]
        struct = function[0].upper() + function[1:]
        nesting = {"struct": "single"}.get(kind, kind)
        single = "listMapperHcl" not in value and nesting != "single"
        mapping = re.search(
            rf"^function {function}ToHclTerraform\(struct\) \{{(.*?)^\}}", self.code, re.S | re.M
        )[1]
        reference = self._class(f"{struct}OutputReference", "")
        return {
            "nesting": nesting,
            "min": int(needed),
            "max": 1 if single else 0,
            "block": self._block(mapping, struct, reference),
        }

    def _computed(self, body: str) -> dict[str, Any]:
        """Return the attributes that only the provider sets, with their types."""
        found: dict[str, Any] = {}
        for name, code in _COMPUTED.findall(body):
            getter = re.search(r"this\.(get\w+Attribute)\(", code)
            maps = re.search(r"new cdkt[fn]\.(String|Number|Boolean|Any)(Map|List)\(", code)
            nested = re.search(r'new (\w+)List\(this, "\w+", (true|false)\)', code)
            if getter and getter[1] in GETTERS:
                kind = GETTERS[getter[1]]
                found[name] = ["set", kind[1]] if "Fn.tolist" in code else kind
            elif maps:
                found[name] = [maps[2].lower(), SCALARS[maps[1].lower()]]
            elif nested:
                fields = self._computed(self._class(f"{nested[1]}OutputReference"))
                found[name] = ["set" if nested[2] == "true" else "list", ["object", fields]]
            else:
                raise ValueError(f"{name}: unknown form: {code}")
        return found

    def _class(self, name: str, default: str | None = None) -> str:
        found = re.search(rf"^class {name} extends .*?\{{(.*?)^\}}", self.code, re.S | re.M)
        if found is None and default is None:
            raise ValueError(f"no class {name}")
        return found[1] if found else default or ""

    def _required(self, interface: str) -> dict[str, bool]:
        found = re.search(
            rf"^export interface {interface} .*?\{{(.*?)^\}}", self.declarations, re.S | re.M
        )[1]
        lines = re.findall(r"^\s+readonly (\w+)(\??):", found, re.M)
        return {name: not optional for name, optional in lines}


def _attribute_type(kind: str, storage: str) -> Any:
    base = SCALARS[re.fullmatch(r"(string|number|boolean|any)(?:List|Map|MapList)?", storage)[1]]
    return base if kind == "simple" else [kind, base]


def _class_name(resource: str) -> str:
    return "".join(part.capitalize() for part in resource.split("_"))


def generate(wheel: Path) -> dict[str, Any]:
    """Return the schema document that provider.py serves."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
        content = io.BytesIO(archive.read(name))
    with tarfile.open(fileobj=content) as package:
        about = json.load(package.extractfile("package/package.json"))
        provider = Module(package, "provider").top("GoogleProvider")
        provider["attributes"].pop("alias")  # Terraform's own
        for attribute in provider["attributes"].values():
            attribute["computed"] = False
        resources = {
            f"google_{name}": Module(package, name.replace("_", "-")).top(_class_name(name))
            for name in RESOURCES
        }
        data = {
            f"google_{name}": Module(package, f"data-google-{name.replace('_', '-')}").top(
                f"DataGoogle{_class_name(name)}"
            )
            for name in DATA_SOURCES
        }
    source = f"{about['name']} {about['version']}, {about['license']}"
    return {"source": source, "provider": provider, "resources": resources, "data": data}


if __name__ == "__main__":
    document = generate(Path(sys.argv[1]))
    target = Path(__file__).with_name("schema.json")
    target.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    print(f"{target}: {document['source']}, {len(document['resources'])} resources")
