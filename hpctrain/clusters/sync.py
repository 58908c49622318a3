"""Code and data to other hosts by rsync: what git tracks, and what the configuration names.

The files keep their place: a project at one path here has one path on every host, and a run
starts in the same folder of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpctrain.clusters.cloud.access import NodeAccess
from hpctrain.errors import ClusterError, raise_all
from hpctrain.executor import Command, Executor, run_on_all

GIT_TIMEOUT_S = 60.0
SYNC_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Project:
    """What is sent: files and folders below `root`, by their paths relative to it.

    Args:
        folder: where the person stands, relative to `root`.
        outside: what the configuration names and is elsewhere; it is not sent.
    """

    root: Path
    folder: Path
    paths: tuple[str, ...]
    outside: tuple[str, ...] = ()


def find_project(here: Path, named: Sequence[Path], executor: Executor) -> Project:
    """Return the project around a folder: a git checkout, else the folder with what is named.

    Args:
        here: an absolute folder.
        named: files and folders that the configuration or the command line names.
    """
    top = executor.run(
        Command(("git", "-C", str(here), "rev-parse", "--show-toplevel")), timeout_s=GIT_TIMEOUT_S
    )
    root = Path(top.stdout.strip()) if top.ok else here
    paths: dict[str, None] = {}
    if top.ok:
        listed = executor.run(
            Command(("git", "-C", str(root), "ls-files", "-z")), timeout_s=GIT_TIMEOUT_S
        )
        tracked = [each for each in listed.stdout.split("\0") if each]
        # A file that was deleted here and not in git yet would stop rsync.
        paths = dict.fromkeys(each for each in tracked if (root / each).exists())
    outside = []
    for path in named:
        absolute = _existing(here / path)
        if absolute is None:
            continue
        if absolute.is_relative_to(root.resolve()):
            paths[str(absolute.relative_to(root.resolve()))] = None
        else:
            outside.append(str(absolute))
    return Project(root, here.resolve().relative_to(root.resolve()), tuple(paths), tuple(outside))


def _existing(path: Path) -> Path | None:
    """Return where a path leads, None for nowhere: a word of a command can be any text."""
    try:
        absolute = path.resolve()
        return absolute if absolute.exists() else None
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return None


def send_project(access: NodeAccess, nodes: Sequence[str], project: Project, target: str) -> None:
    """Bring the project to every node, all at once.

    Args:
        target: the folder on the nodes; relative to the home there, or absolute.

    Raises:
        ClusterError: with the last words of each node that did not get it.
    """
    names = "\0".join(project.paths)

    def send(node: str) -> str:
        made = access.run(node, "mkdir", "-p", target)
        if not made.ok:
            return f"{node}: cannot make {target}: {made.last_words}."
        done = access.rsync(
            f"{project.root}/", f"{node}:{target}/",
            "--recursive", "--from0", "--files-from=-", stdin=names, timeout_s=SYNC_TIMEOUT_S,
        )  # fmt: skip
        return "" if done.ok else f"{node}: rsync: {done.last_words}. It needs rsync on both sides."

    raise_all(ClusterError, [problem for problem in run_on_all(send, list(nodes)) if problem])


def fetch_folder(access: NodeAccess, node: str, source: str, target: Path) -> str:
    """Bring a folder back; return why that failed, "" where it did not."""
    target.mkdir(parents=True, exist_ok=True)
    done = access.rsync(f"{node}:{source}/", f"{target}/", timeout_s=SYNC_TIMEOUT_S)
    return "" if done.ok else f"{node}: rsync: {done.last_words}"
