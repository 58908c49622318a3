"""Terraform's state of a cluster: is there one, is it whole, has somebody changed it meanwhile?

It is the only list of what exists and costs. So nothing here takes "cannot be read" for "nothing
there", and the folder that Terraform needs to read it is exchanged whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from hpctrain.clusters.cloud.events import short_address
from hpctrain.clusters.cloud.terraform import TerraformAdapter
from hpctrain.clusters.cluster_dir import ClusterDirectory
from hpctrain.errors import ClusterError

FOLDER = "terraform"  # in the cluster's directory
ROOT_FILE = "main.tf.json"
STATE_FILE = "terraform.tfstate"
ERRORED_FILE = "errored.tfstate"  # where Terraform leaves a state that it could not save
KEY = "id_ed25519"
NODE_RESOURCES = ("aws_instance.node[", "google_compute_instance.node[")


def has_state(directory: ClusterDirectory) -> bool:
    """Return whether anything may exist at the cloud: there is a state, or a set-up for one."""
    folder = directory.path / FOLDER
    states = (directory.path / STATE_FILE, _backup(directory))
    return any(map(os.path.lexists, (folder, _set_aside(folder), *states))) or _has_backend(
        directory
    )


def find_folder(directory: ClusterDirectory) -> Path:
    """Return Terraform's folder; after a crash that may be the one that was set aside.

    Raises:
        ClusterError: something may exist at the cloud, and nothing could say what.
    """
    folder = made_folder(directory)
    if not (folder / ROOT_FILE).exists():
        raise ClusterError(
            f"{folder}: what Terraform needs to know the cluster is missing, got no {ROOT_FILE}; "
            f"expected one. Nothing was removed. Make it anew: hpctrain cluster up --name "
            f"{directory.name}, with the options that the cluster was made with"
        )
    if _backup(directory).exists() and not (directory.path / STATE_FILE).exists():
        raise ClusterError(
            f"{directory.path / STATE_FILE}: the list of what exists at the cloud is missing, got "
            f"its backup alone; expected both. Nothing was removed. Put it back: "
            f"cp {_backup(directory)} {directory.path / STATE_FILE}"
        )
    return folder


def made_folder(directory: ClusterDirectory) -> Path:
    """Return where the folder of the last `up` is, or would be."""
    folder = directory.path / FOLDER
    return folder if folder.exists() or not _set_aside(folder).exists() else _set_aside(folder)


def refuse_errored_state(directory: ClusterDirectory) -> None:
    """Refuse to go on while a state waits that Terraform could not save: it alone is right.

    Raises:
        ClusterError: there is one; says how to put it back.
    """
    for folder in (directory.path / FOLDER, _set_aside(directory.path / FOLDER)):
        file = folder / ERRORED_FILE
        if file.exists():
            raise ClusterError(
                f"{file}: the last `up` or `down` could not save what exists at the cloud, got "
                "this file; expected none. Put it back: "
                f"terraform -chdir={folder} state push {ERRORED_FILE} && rm {file}"
            )


def adopt_scratch(scratch: Path, directory: ClusterDirectory) -> Path:
    """Bring the plan that was shown, with its key, into the cluster's directory.

    A crash at any moment leaves the old folder, the new one, or the old one set aside, where
    :func:`find_folder` finds it: never half of one.
    """
    folder = directory.path / FOLDER
    draft = folder.with_name(f"{FOLDER}.new")
    for name in (KEY, f"{KEY}.pub"):
        if (scratch / name).exists():
            shutil.move(scratch / name, directory.path / name)
    if folder.exists():
        shutil.rmtree(_set_aside(folder), ignore_errors=True)
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(scratch, draft, symlinks=True)
    if folder.exists():
        os.replace(folder, _set_aside(folder))
    os.replace(draft, folder)
    shutil.rmtree(_set_aside(folder), ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)
    return folder


def fingerprint(directory: ClusterDirectory) -> str:
    """Return a mark of the key and the state: another one means that somebody was here."""
    digest = hashlib.sha256()
    for name in (KEY, STATE_FILE):
        path = directory.path / name
        digest.update(path.read_bytes() if path.exists() else b"none")
        digest.update(b"\0")
    return digest.hexdigest()


def state_count(adapter: TerraformAdapter) -> tuple[list[str] | None, int | None]:
    """Return what is in the state, and how many machines; None where that cannot be read."""
    try:
        there = [short_address(each) for each in adapter.list_state()]
    except ClusterError:
        return None, None
    return there, sum(is_node(each) for each in there)


def is_node(address: str) -> bool:
    """Return whether a resource is a machine."""
    return short_address(address).startswith(NODE_RESOURCES)


def _set_aside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.old")


def _backup(directory: ClusterDirectory) -> Path:
    return directory.path / f"{STATE_FILE}.backup"


def _has_backend(directory: ClusterDirectory) -> bool:
    """Return whether the state is elsewhere, so that no file here tells of it."""
    with contextlib.suppress(ClusterError):
        record = directory.read()
        return bool(record and record.provider_data.get("options", {}).get("backend"))
    return False
