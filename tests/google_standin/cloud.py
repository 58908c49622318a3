"""What stands in for Google's side: names that are taken, addresses, links; kept in a file."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tf.types import Unknown

_COLLECTIONS = {
    "google_compute_address": "addresses",
    "google_compute_firewall": "firewalls",
    "google_compute_image": "images",
    "google_compute_instance": "instances",
    "google_compute_network": "networks",
    "google_compute_resource_policy": "resourcePolicies",
    "google_compute_subnetwork": "subnetworks",
    "google_filestore_instance": "locations",
    "google_service_account": "serviceAccounts",
}
_ZONAL = {"google_compute_instance"}
_REGIONAL = {
    "google_compute_address",
    "google_compute_resource_policy",
    "google_compute_subnetwork",
}


class Refused(Exception):
    """Google would say no."""


class Cloud:
    """Opened for one change, with the file locked: Terraform makes several things at once."""

    def __init__(self, folder: Path, project: str) -> None:
        self.folder = folder
        self.project = project
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Cloud:
        self.lock = (self.folder / "lock").open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        try:
            self.data = json.loads((self.folder / "cloud.json").read_text())
        except FileNotFoundError:
            self.data = {"next": 2, "things": {}}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        draft = self.folder / "draft"  # tests read while we write
        draft.write_text(json.dumps(self.data, indent=1))
        draft.replace(self.folder / "cloud.json")
        self.lock.close()

    def add(self, kind: str, planned: dict[str, Any]) -> Fill:
        """Take a name; return what fills in the rest.

        Raises:
            Refused: the name is taken, or the test asked for a refusal.
        """
        if (self.folder / "slow").exists() and kind == "google_compute_instance":
            time.sleep(2)
        refuse = self.folder / "refuse"
        if refuse.exists() and refuse.read_text().strip() == planned.get("name"):
            raise Refused("googleapi: Error 403: Quota 'GPUS_ALL_REGIONS' exceeded. Limit: 0.0")
        self.data["next"] += 1
        fill = Fill(kind, planned, self.project, self.data["next"])
        if fill.id in self.data["things"]:
            raise Refused(f"googleapi: Error 409: The resource '{fill.id}' already exists")
        self.data["things"][fill.id] = kind
        return fill

    def remove(self, thing: str) -> None:
        self.data["things"].pop(thing, None)

    def has(self, thing: str) -> bool:
        return thing in self.data["things"]


class Fill:
    """Values that Google would give to a new thing."""

    def __init__(self, kind: str, planned: dict[str, Any], project: str, number: int) -> None:
        self.kind, self.planned, self.project, self.number = kind, planned, project, number
        self.project = self._given("project") or project
        name = self._given("name") or self._given("account_id") or self._given("family")
        place = "global"
        if kind in _ZONAL:
            place = f"zones/{self._given('zone')}"
        elif kind in _REGIONAL:
            place = f"regions/{self._given('region')}"
        self.id = f"projects/{self.project}/{place}/{_COLLECTIONS[kind]}/{name}"

    def __call__(self, path: tuple[Any, ...]) -> Any:
        """Return the value at `path`, None for what nothing here reads."""
        leaf = path[-1]
        labels = {**(self._given("labels") or {}), "goog-terraform-provisioned": "true"}
        values = {
            "address": str(ipaddress.ip_address("203.0.113.0") + self.number),
            "current_status": "RUNNING",
            "effective_labels": labels,
            "email": f"{self.planned.get('account_id')}@{self.project}.iam.gserviceaccount.com",
            "id": self.id,
            "instance_id": str(10**18 + self.number),
            "ip_addresses": ["10.99.0.2"],
            "nat_ip": str(ipaddress.ip_address("203.0.113.0") + self.number),
            "network_ip": str(ipaddress.ip_address("10.128.0.0") + self.number),
            "project": self.project,
            "self_link": f"https://www.googleapis.com/compute/v1/{self.id}",
            "terraform_labels": labels,
        }
        return values.get(leaf)

    def _given(self, name: str) -> Any:
        value = self.planned.get(name)
        return None if value is Unknown else value
