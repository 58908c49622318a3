"""Ask this machine about GPUs' links, the fabric's software and the cloud's name for it.

What cannot be read is left out: a rule that needs it then asks for nothing.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

from hpctrain.executor import Command, Executor, run_on_all
from hpctrain.fabric_facts import (
    parse_efa_packages,
    parse_gpu_link,
    parse_library_version,
    parse_machine_type,
    parse_peer_access,
    parse_plugin_version,
)

NVIDIA_SMI_TIMEOUT_S = 15.0
# Both start at the same time, and both are asked of the driver alone.
TOPOLOGY, PEER_ACCESS = ("nvidia-smi", "topo", "-m"), ("nvidia-smi", "topo", "-p2p", "r")
EFA_PACKAGES = "/opt/amazon/efa_installed_packages"
# Where AWS's images, its containers and its EFA installer put the plugin.
OFI_PLUGINS = (
    "/opt/amazon/ofi-nccl/lib*/libnccl-net*.so",
    "/opt/amazon/ofi-nccl/lib/*/libnccl-net*.so",
    "/opt/aws-ofi-nccl/lib*/libnccl-net*.so",
    "/opt/aws-ofi-nccl/install/lib/libnccl-net*.so",
    "/usr/local/lib/libnccl-net*.so",
)
# Where the linker looks for NCCL beside LD_LIBRARY_PATH.
NCCL_FOLDERS = (
    "/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/local/lib", "/usr/local/nccl/lib",
    "/usr/local/cuda/lib64",
)  # fmt: skip
NCCL_WHEELS = ("nvidia-nccl-cu13", "nvidia-nccl-cu12", "nvidia-nccl-cu11")
# Google Cloud, 'VM metadata': an address on the machine itself, never on a network.
GCP_METADATA_HOST = "169.254.169.254"
GCP_MACHINE_TYPE = "/computeMetadata/v1/instance/machine-type"
METADATA_TIMEOUT_S = 1.0


def probe_gpu_links(executor: Executor, count: int) -> tuple[str | None, bool | None]:
    """Return what joins this machine's GPUs, and whether they read each other's memory."""
    if count < 2:
        return None, None

    def ask(argv: tuple[str, ...]) -> str:
        done = executor.run(Command(argv), timeout_s=NVIDIA_SMI_TIMEOUT_S)
        return done.stdout if done.ok else ""

    topology, peers = run_on_all(ask, (TOPOLOGY, PEER_ACCESS))
    return parse_gpu_link(topology), parse_peer_access(peers)


def probe_versions(*, has_gpus: bool, cloud: str | None) -> dict[str, str]:
    """Return the versions of NCCL, and on AWS of libfabric and the plugin between them."""
    found = {}
    if has_gpus and (nccl := _find_nccl()):
        found["nccl"] = nccl
    if cloud == "aws":
        found |= probe_efa_packages()
        if version := find_ofi_plugin(os.environ.get("LD_LIBRARY_PATH", ""))[1]:
            found["aws-ofi-nccl"] = version
    return found


def probe_instance_type(cloud: str | None) -> str | None:
    """Return the cloud's name of this machine's type."""
    if cloud == "aws":
        # Nitro machines have it in their firmware; Xen's say "HVM domU".
        name = _read(Path("/sys/class/dmi/id/product_name"))
        return name if "." in name else None
    return parse_machine_type(_ask_gcp_metadata()) if cloud == "gcp" else None


def probe_driver(interface: str) -> str:
    """Return the driver of a network interface; "" for one that is no device."""
    try:
        return os.path.basename(os.readlink(f"/sys/class/net/{interface}/device/driver"))
    except OSError:
        return ""


def _find_nccl() -> str | None:
    """Return the version of the NCCL that torch loads: its wheel's, else the system's."""
    from importlib import metadata

    for wheel in NCCL_WHEELS:
        try:
            return metadata.version(wheel)
        except metadata.PackageNotFoundError:
            continue
    files = [
        path for folder in NCCL_FOLDERS for path in sorted(glob.glob(f"{folder}/libnccl.so.2*"))
    ]
    return parse_library_version([os.path.realpath(path) for path in files])


def probe_efa_packages() -> dict[str, str]:
    """Return the versions that AWS's installer has noted down."""
    return parse_efa_packages(_read(Path(EFA_PACKAGES)))


def find_ofi_plugin(library_path: str) -> tuple[str, str | None]:
    """Return the file of NCCL's plugin for EFA, empty where there is none, and its version.

    Args:
        library_path: ``LD_LIBRARY_PATH``, whose folders come first.
    """
    folders = [glob.escape(folder) for folder in library_path.split(os.pathsep) if folder]
    unknown = ""
    for pattern in (*(f"{folder}/libnccl-net*.so" for folder in folders), *OFI_PLUGINS):
        for path in sorted(glob.glob(pattern)):
            try:
                version = parse_plugin_version(Path(path).read_bytes())
            except OSError:
                continue
            if version:
                return path, version
            unknown = unknown or path
    return unknown, None


def _ask_gcp_metadata() -> str:
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(GCP_METADATA_HOST, timeout=METADATA_TIMEOUT_S)
    try:
        connection.request("GET", GCP_MACHINE_TYPE, headers={"Metadata-Flavor": "Google"})
        answer = connection.getresponse()
        return answer.read(1000).decode("ascii", "replace") if answer.status == 200 else ""
    except (OSError, HTTPException):
        return ""
    finally:
        connection.close()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
