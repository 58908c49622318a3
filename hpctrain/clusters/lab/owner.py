"""Whose is it? A lab's names in the kernel are one for all of this machine; notes and locks in a
state folder are each user's own. So a lab is marked with the folder that it was made from."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from hpctrain.clusters.cluster_dir import ClusterDirectory
from hpctrain.clusters.file_lock import hold_file, remove_held_file
from hpctrain.clusters.lab.find import find_processes, read_link_mark, words_of
from hpctrain.clusters.lab.names import machine_link, marked_folder, state_folder_mark
from hpctrain.errors import ClusterError

NAME_LOCKS = Path("/run/hpctrain")
LOCK_PATIENCE_S = 0.5
# What Terraform and its clusters keep: without it, machines that cost money are not found again.
CLOUD_FILES = ("terraform", ".terraform*", "*.tfstate*", "*.tfplan", "*.tf", "*.tf.json",
               "id_ed25519*", "id_rsa*", "*.pem")  # fmt: skip


def find_cloud_files(directory: ClusterDirectory) -> list[str]:
    """Return the names of what a cloud's cluster keeps in a directory, and a lab never does."""
    return sorted({path.name for pattern in CLOUD_FILES for path in directory.path.glob(pattern)})


def refuse_cloud_files(directory: ClusterDirectory) -> None:
    """Refuse a directory that a cloud's cluster may need, whatever its record says.

    Raises:
        ClusterError: it holds something that no lab writes.
    """
    if found := find_cloud_files(directory):
        raise ClusterError(
            f"{directory.path}: this is no lab's, got {', '.join(found)} in it; expected a lab's "
            "files alone. It is what finds a cloud's machines again, and stays. Take them down "
            f"with it: terraform -chdir={directory.path / 'terraform'} destroy"
        )


def find_owner(lab: str) -> str | None:
    """Return the mark of the folder that a lab was made from; None where nothing tells."""
    if folder := marked_folder(lab, read_link_mark(lab) or ""):
        return folder
    for each in find_processes(lab):  # its link is lost: a node's first process names its script
        words = words_of(each.pid)
        if each.is_init and len(words) > 1 and words[1].endswith("/init"):
            return state_folder_mark(str(Path(words[1]).parents[2]))
    return None


def find_other_owner(directory: ClusterDirectory) -> str | None:
    """Return whose a lab of this name is that runs and was made from another folder."""
    owner = find_owner(directory.name)
    if owner is None or not find_processes(directory.name):
        return None
    with contextlib.suppress(OSError):
        if os.path.samefile(owner, directory.path):
            return None
    return None if owner == state_folder_mark(str(directory.path)) else owner


def describe_other_owner(lab: str, owner: str) -> str:
    """Return what is wrong where a lab of this name is another's, and what can be done."""
    advice = "Have it taken down by who made it"
    if owner.endswith(f"/hpctrain/clusters/{lab}"):
        state = Path(owner).parents[2]
        advice = f"Take it down from there: XDG_STATE_HOME={state} hpctrain cluster down --name "
        advice += lab
    return (
        f"{lab}: a lab of this name runs on this machine and is another's, got one made from "
        f"{owner}; expected one of this state folder, or none. {advice}, or choose another --name."
    )


def refuse_others_lab(directory: ClusterDirectory) -> None:
    """Refuse a lab that runs and was made from another state folder.

    Raises:
        ClusterError: it is such a one; with how to take it down.
    """
    if owner := find_other_owner(directory):
        raise ClusterError(describe_other_owner(directory.name, owner))


def describe_foreign_link(lab: str) -> str:
    """Return what is wrong where the name of this machine's link to a lab is taken."""
    link = machine_link(lab)
    return (
        f"{link}: this machine has a link of this name that is not this lab's, got alias "
        f"'{read_link_mark(lab) or ''}'; expected the name to be free. It stays as it is: rename "
        f"it (ip link set {link} down name OTHER), or choose another --name."
    )


@contextlib.contextmanager
def holding_name(lab: str) -> Iterator[None]:
    """Keep every other hpctrain of this machine from a lab's name for the length of a block.

    Raises:
        ClusterError: another process holds it.
    """
    path = NAME_LOCKS / f"{lab}.lock"
    try:
        lock = hold_file(path, LOCK_PATIENCE_S)
    except OSError as problem:
        raise ClusterError(f"{path}: cannot be made: {problem.strerror}.") from problem
    if lock is None:
        raise ClusterError(
            f"{lab}: another hpctrain is making or removing a lab of this name just now, from "
            "another state folder. Wait for it, or choose another --name."
        )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            remove_held_file(lock, path)
        os.close(lock)


@contextlib.contextmanager
def choosing_addresses(limit_s: float = 10.0) -> Iterator[None]:
    """Keep other labs of this machine from choosing a network at the same time.

    Raises:
        ClusterError: another one takes longer than `limit_s`.
    """
    lock = os.open("/run", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        begun_s = time.monotonic()
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - begun_s > limit_s:
                    raise ClusterError(
                        f"lab: another lab is choosing its network since {limit_s:g} s."
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(lock)
