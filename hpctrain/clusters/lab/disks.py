"""Nodes' private disks: which there are. What was trained lies there and nowhere else."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hpctrain.clusters.cluster_dir import ClusterDirectory

# What a node has written: of each file system of this machine's, and in each hidden folder.
LAYERS = ("upper-*", "hidden-*")


def find_disks(directory: ClusterDirectory, *, written: bool = False) -> list[str]:
    """Return the nodes that have a private disk, in order.

    Args:
        written: those alone of which something is on this machine's disk. In most containers
            they are in memory, and go with their node.
    """
    folders = (directory.path / "nodes").glob("n*/disk")
    nodes = [folder.parent.name for folder in folders if not written or _is_written(folder)]
    return in_order(nodes)


def _is_written(disk: Path) -> bool:
    return any(any(layer.iterdir()) for pattern in LAYERS for layer in disk.glob(pattern))


def in_order(nodes: Collection[str]) -> list[str]:
    """Return nodes by their numbers.

    >>> in_order({"n10", "n9"})
    ['n9', 'n10']
    """
    return sorted(nodes, key=lambda node: (len(node), node))


def describe_loss(nodes: Collection[str]) -> str:
    """Return in words that disks go."""
    disks = "the private disk" if len(nodes) == 1 else "the private disks"
    return f"{disks} of {', '.join(in_order(nodes))}, with all that was written there"
