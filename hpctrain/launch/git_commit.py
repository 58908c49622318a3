"""Which commit does this working directory stand at? Read from git's files."""

from __future__ import annotations

from pathlib import Path


def git_commit() -> str | None:
    """Read the commit of this working directory; without git, which a launch must not wait for."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        try:
            if (folder / ".git").exists():
                return read_git_commit(folder / ".git")
        except OSError:
            return None
    return None


def read_git_commit(git: Path) -> str | None:
    """Return the commit that HEAD means, or None.

    Args:
        git: the ``.git`` of a checkout; a file, in a worktree or submodule, names the folder.

    Raises:
        OSError: it cannot be read.
    """
    if git.is_file():
        git = git.parent / git.read_text().strip().removeprefix("gitdir: ")
    common = git / "commondir"
    shared = git / common.read_text().strip() if common.is_file() else git
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head
    name = head.removeprefix("ref: ")
    for folder in (git, shared):
        if (folder / name).is_file():
            return (folder / name).read_text().strip()
    packed = shared / "packed-refs"
    lines = packed.read_text().splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)
