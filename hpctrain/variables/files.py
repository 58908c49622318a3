"""Files that set variables without anybody typing them: parsers, and which ones there are. Pure.

Sources: NCCL, ``src/misc/param.cc`` (2.30); Open MPI 5 documentation, 'Setting MCA parameter
values'; environment(7) and pam_env(8) for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

PREFIXES = (
    "NCCL_", "OMPI_", "PRTE_", "PMIX_", "I_MPI_", "MPICH_", "MPIR_CVAR_", "HYDRA_", "UCX_", "FI_",
    "HOROVOD_", "OFI_NCCL_", "RDMAV_", "GLOO_", "TORCH_NCCL_",
)  # fmt: skip
# Set in every rank by the launcher itself: who runs where, and no setting of anybody's.
BOOKKEEPING = (
    "OMPI_COMM_WORLD_", "OMPI_UNIVERSE_", "OMPI_FILE_", "OMPI_FIRST_RANKS", "OMPI_NUM_",
    "OMPI_APP_", "OMPI_ARGV", "OMPI_COMMAND", "OMPI_MCA_orte_", "OMPI_MCA_ess_", "OMPI_VERSION",
    "PMIX_RANK", "PMIX_NAMESPACE", "PMIX_SERVER_", "PMIX_SECURITY_", "PMIX_HOSTNAME",
    "PMIX_VERSION", "PMIX_BFROP_", "PMIX_GDS_", "PMIX_ID", "PRTE_LAUNCHED", "I_MPI_HYDRA_HOST_",
    "HYDI_",
)  # fmt: skip
PROFILE_FILES = (
    "/etc/environment", "/etc/profile", "/etc/bash.bashrc", "~/.bashrc", "~/.bash_profile",
    "~/.profile", "~/.ssh/environment",
)  # fmt: skip
PROFILE_FOLDER = "/etc/profile.d"
_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=(.*)$")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A library's own configuration file.

    Args:
        path: with ``~`` for the user's home and ``{mpi}`` for MPI's prefix.
        prefix: what its names begin with where they are variables.
        source: who says that it is read.
    """

    path: str
    prefix: str
    source: str


NCCL_SOURCE = "NCCL, src/misc/param.cc"
MCA_SOURCE = "Open MPI 5 documentation, 'Setting MCA parameter values'"
SYSTEM_NCCL = ConfigFile("/etc/nccl.conf", "", NCCL_SOURCE)
USER_NCCL = ConfigFile("~/.nccl.conf", "", NCCL_SOURCE)
MCA_FILES = (
    ConfigFile("~/.openmpi/mca-params.conf", "OMPI_MCA_", MCA_SOURCE),
    ConfigFile("{mpi}/etc/openmpi-mca-params.conf", "OMPI_MCA_", MCA_SOURCE),
    ConfigFile("~/.prte/mca-params.conf", "PRTE_MCA_", MCA_SOURCE),
    ConfigFile("{mpi}/etc/prte-mca-params.conf", "PRTE_MCA_", MCA_SOURCE),
    ConfigFile("~/.pmix/mca-params.conf", "PMIX_MCA_", MCA_SOURCE),
    ConfigFile("{mpi}/etc/pmix-mca-params.conf", "PMIX_MCA_", MCA_SOURCE),
)


def config_files(environ: Mapping[str, str]) -> tuple[ConfigFile, ...]:
    """Return the files that are read, the strongest first.

    Args:
        environ: a rank's: NCCL_CONF_FILE stands in the place of the user's own file.
    """
    named = environ.get("NCCL_CONF_FILE")
    user = ConfigFile(named, "", NCCL_SOURCE) if named else USER_NCCL
    return (user, SYSTEM_NCCL, *MCA_FILES)


def is_read_by_libraries(name: str) -> bool:
    """Return whether a variable is one that `hpctrain env explain` is about.

    >>> is_read_by_libraries("NCCL_DEBUG"), is_read_by_libraries("OMPI_COMM_WORLD_RANK")
    (True, False)
    """
    return name.startswith(PREFIXES) and not name.startswith(BOOKKEEPING)


def parse_nccl_conf(text: str) -> dict[str, str]:
    """Return a nccl.conf's variables, read as NCCL does: no quotes, no spaces taken away.

    The first of two lines counts, because NCCL never overwrites what is set.

    >>> parse_nccl_conf("# a comment\\nNCCL_DEBUG=WARN\\nNCCL_SOCKET_IFNAME==ens1f0\\n")
    {'NCCL_DEBUG': 'WARN', 'NCCL_SOCKET_IFNAME': '=ens1f0'}
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name and not line.startswith("#"):
            found.setdefault(name, value)
    return found


def parse_mca_params(text: str, prefix: str) -> dict[str, str]:
    """Return the parameters of an mca-params.conf as variables; the last of two lines counts.

    >>> parse_mca_params("# x\\nbtl = ^openib\\nbtl_tcp_if_include=eth0", "OMPI_MCA_")
    {'OMPI_MCA_btl': '^openib', 'OMPI_MCA_btl_tcp_if_include': 'eth0'}
    """
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() and not name.lstrip().startswith("#"):
            found[prefix + name.strip()] = value.strip()
    return found


def parse_profile(text: str) -> dict[str, str]:
    """Return what a shell's start-up file or /etc/environment plainly assigns.

    Values with ``$`` are left out: what they come to is the shell's to say.

    >>> parse_profile("export NCCL_DEBUG=INFO  # more\\nNCCL_NET='IB'\\nexport PATH=$PATH:/x")
    {'NCCL_DEBUG': 'INFO', 'NCCL_NET': 'IB'}
    """
    import shlex

    found = {}
    for line in text.splitlines():
        match = _ASSIGNMENT.match(line)
        if match is None or "$" in match[2] or "`" in match[2]:
            continue
        try:
            words = shlex.split(match[2], comments=True)
        except ValueError:
            continue
        if len(words) <= 1:
            found[match[1]] = words[0] if words else ""
    return found
