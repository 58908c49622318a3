"""Parsers of what a machine says of its GPUs' links and of the fabric's software. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_GPU = re.compile(r"GPU\d+")
# Debian packages are joined by "_", RPMs by "-".
_EFA_PACKAGES = (
    ("libfabric", re.compile(r"\blibfabric(?:1?-aws|1)[_-](\d[\w.]*)")),
    ("aws-ofi-nccl", re.compile(r"\blibnccl-ofi[_-](\d[\w.]*)")),
)
_PLUGIN_SAYS = re.compile(rb"(?:Initializing|Using) aws-ofi-nccl (\d[\w.-]*)")


def parse_gpu_link(text: str) -> str | None:
    """Return what joins GPUs by ``nvidia-smi topo -m``: ``nvlink`` if every pair has it.

    >>> parse_gpu_link("\\tGPU0\\tGPU1\\nGPU0\\t X \\tNV12\\nGPU1\\tNV12\\t X \\n")
    'nvlink'
    >>> parse_gpu_link("\\tGPU0\\tCPU Affinity\\nGPU0\\t X \\t0-63\\n") is None
    True
    """
    pairs = _gpu_pairs(text)
    if not pairs:
        return None
    return "nvlink" if all(pair.startswith("NV") for pair in pairs) else "pcie"


def parse_peer_access(text: str) -> bool | None:
    """Return whether ``nvidia-smi topo -p2p r`` says OK of every pair of GPUs; None without pairs.

    >>> parse_peer_access(" \\tGPU0\\tGPU1\\t\\n GPU0\\tX\\tGNS\\t\\n GPU1\\tGNS\\tX\\t\\n")
    False
    """
    pairs = _gpu_pairs(text)
    return all(pair == "OK" for pair in pairs) if pairs else None


def _gpu_pairs(text: str) -> list[str]:
    """Return a matrix' entries that stand for two GPUs; its other columns are NICs and CPUs."""
    rows = [line.split() for line in _ANSI.sub("", text).splitlines()]
    matrix = [row for row in rows if len(row) > 1 and _GPU.fullmatch(row[0])]
    if not matrix:
        return []
    heading, *entries = matrix
    gpus = sum(1 for word in heading if _GPU.fullmatch(word))
    return [word for row in entries for word in row[1 : gpus + 1] if word != "X"]


def parse_efa_packages(text: str) -> dict[str, str]:
    """Return versions from ``/opt/amazon/efa_installed_packages``.

    >>> parse_efa_packages("libfabric1-aws_1.16.0~amzn3.0_amd64 libnccl-ofi_1.16.2-1_amd64")
    {'libfabric': '1.16.0', 'aws-ofi-nccl': '1.16.2'}
    """
    found = {}
    for product, pattern in _EFA_PACKAGES:
        if match := pattern.search(text):
            found[product] = match[1]
    return found


def parse_plugin_version(library: bytes) -> str | None:
    """Return the version in the words that aws-ofi-nccl says in NCCL's log, from its library.

    >>> parse_plugin_version(b"\\0NET/OFI Initializing aws-ofi-nccl 1.7.3-aws\\0")
    '1.7.3-aws'
    """
    match = _PLUGIN_SAYS.search(library)
    return match[1].decode() if match else None


def parse_library_version(names: Sequence[str]) -> str | None:
    """Return NCCL's version from the names of its library's files.

    >>> parse_library_version(["libnccl.so.2", "libnccl.so.2.21.5"])
    '2.21.5'
    """
    for name in names:
        if match := re.search(r"libnccl\.so\.(\d+\.\d+\.\d+)$", name):
            return match[1]
    return None


def parse_machine_type(text: str) -> str | None:
    """Return a GCP machine's type from what its metadata server says.

    >>> parse_machine_type("projects/123/machineTypes/a3-highgpu-8g")
    'a3-highgpu-8g'
    """
    head, slash, name = text.strip().rpartition("/machineTypes/")
    return name if slash and head and re.fullmatch(r"[a-z0-9-]+", name) else None
