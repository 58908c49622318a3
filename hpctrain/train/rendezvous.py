"""Where torch.distributed's ranks meet: an address and a port of rank 0's host."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping

from hpctrain.errors import LaunchError
from hpctrain.launch.rank_env import RankIdentity

ADDRESS_VARIABLE, PORT_VARIABLE = "MASTER_ADDR", "MASTER_PORT"
# Below what Linux gives to outgoing connections (net.ipv4.ip_local_port_range, 32768 up).
_FIRST_PORT, _PORTS = 20000, 12000


def find_meeting_point(environ: Mapping[str, str], rank: RankIdentity) -> tuple[str, int]:
    """Return the address and the port.

    `hpctrain run` gives both. Under an mpirun of one's own on one machine it is the loopback
    address, and a port derived from what all ranks of the job share and other jobs do not.

    >>> find_meeting_point({"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"},
    ...                    RankIdentity(0, 2, 0, 1))
    ('10.0.0.1', 29500)

    Raises:
        LaunchError: the ranks are on several hosts and nobody says where they meet.
    """
    address = environ.get(ADDRESS_VARIABLE)
    port = environ.get(PORT_VARIABLE, "")
    if not address:
        if rank.local_size != rank.size:
            raise LaunchError(
                f"{ADDRESS_VARIABLE}: not set, got {rank.size} ranks on several hosts; expected "
                "the address of rank 0's host. Start them with 'hpctrain run', or export "
                f"{ADDRESS_VARIABLE} and {PORT_VARIABLE} to all ranks."
            )
        address = "127.0.0.1"
    if not port.isdigit():
        if rank.size == 1:
            return address, 0  # any free one: nobody else has to know it
        # Open MPI names the job; Hydra does not, but one process starts all ranks of a host.
        job = environ.get("PMIX_NAMESPACE") or f"{os.getppid()}"
        return address, _FIRST_PORT + zlib.crc32(job.encode()) % _PORTS
    return address, int(port)
