"""``./hostfile``: a link to the newest cluster's hostfile, for `hpctrain run --hosts hostfile`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

LINK_NAME = "hostfile"


def link_hostfile(hostfile: Path, folder: Path) -> tuple[Path | None, str]:
    """Let ``hostfile`` in `folder` point to a cluster's; return the link, and a warning or "".

    A link to an older cluster's is replaced. A file or link of the user's own is left alone.
    """
    link = folder.absolute() / LINK_NAME
    if os.path.lexists(link) and not _is_clusters(link, hostfile):
        return None, (
            f"{link} is a file of your own and stays as it is; the cluster's is {hostfile}"
        )
    draft = link.with_name(f".{LINK_NAME}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        draft.symlink_to(hostfile)
        draft.replace(link)
    except OSError as problem:
        return None, f"{link}: cannot be made: {problem.strerror}; the hostfile is {hostfile}"
    return link, ""


def _is_clusters(link: Path, hostfile: Path) -> bool:
    """Return whether a link points to a cluster's hostfile, in `hostfile`'s folder or another."""
    if not link.is_symlink():
        return False
    folder = Path(os.readlink(link)).parent.parent
    return folder == hostfile.parent.parent or folder.parts[-2:] == hostfile.parts[-4:-2]


def unlink_hostfile(hostfile: Path, links: Iterable[str | Path]) -> None:
    """Remove those of `links` that still point to this cluster's hostfile."""
    for link in map(Path, links):
        if link.is_symlink() and os.readlink(link) == str(hostfile):
            link.unlink(missing_ok=True)
