"""Which rank is this, and what does its environment need on this host? Pure functions.

Sources of the variable names: Open MPI 4 and 5 (``OMPI_COMM_WORLD_*``), Hydra in MPICH and
Intel MPI (``PMI_*``, ``MPI_LOCAL*``), seen in the environment of real ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from hpctrain.errors import LaunchError

if TYPE_CHECKING:  # the shim imports this module: its start-up time is every rank's
    from hpctrain.config.schema import LaunchConfig
    from hpctrain.launch.situation import Situation

SUBNET_NAMES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
CONFIG_VARIABLE = "HPCTRAIN_CONFIG_JSON"  # the resolved configuration, for the trainer
_DIALECTS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)  # fmt: skip


class RankIdentity(NamedTuple):
    """A rank's place, in Horovod's words."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def find_rank(environ: Mapping[str, str]) -> RankIdentity:
    """Return which rank the MPI launcher says that this is.

    >>> local = {"MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
    >>> find_rank({"PMI_RANK": "3", "PMI_SIZE": "4", **local})
    RankIdentity(rank=3, size=4, local_rank=1, local_size=2)

    Raises:
        LaunchError: no MPI launcher started this process, or it started another number of
            ranks than hpctrain asked it for.
    """
    for names in _DIALECTS:
        if names[0] in environ and names[1] in environ:
            rank, size, local_rank, local_size = (int(environ.get(name, "-1")) for name in names)
            identity = RankIdentity(rank, size, max(local_rank, 0), max(local_size, 1))
            break
    else:
        raise LaunchError(
            "rank shim: no MPI launcher's variables found; expected OMPI_COMM_WORLD_RANK or "
            "PMI_RANK. Start it through 'hpctrain run' or its --dry-run line."
        )
    expected = environ.get("HPCTRAIN_SIZE")
    if expected and int(expected) != identity.size:
        raise LaunchError(
            f"rank shim: the launcher gave this rank a world of another size, got "
            f"{identity.size}; expected {expected}. Is this another MPI's mpirun?"
        )
    return identity


def plan_rank_env(
    environ: Mapping[str, str],
    rank: RankIdentity,
    cores: int,
    interfaces: Mapping[str, tuple[str, ...]],
) -> dict[str, str]:
    """Return the variables that depend on the rank or its host.

    What the user set stays. Devices are not masked: programs call ``set_device(local_rank)``.

    Args:
        cores: cores that this rank's host gives to all of its ranks.
        interfaces: this host's interfaces with their addresses; needed only where the launcher
            chose a subnet.
    """
    planned = {
        "HPCTRAIN_RANK": str(rank.rank),
        "HPCTRAIN_LOCAL_RANK": str(rank.local_rank),
        "HPCTRAIN_LOCAL_SIZE": str(rank.local_size),
        # torchrun's names, which most training scripts read.
        "RANK": str(rank.rank),
        "WORLD_SIZE": str(rank.size),
        "LOCAL_RANK": str(rank.local_rank),
        "LOCAL_WORLD_SIZE": str(rank.local_size),
    }
    threads = environ.get("HPCTRAIN_THREADS") or str(max(1, cores // rank.local_size))
    defaults = {
        "OMP_NUM_THREADS": threads,
        # Otherwise the last lines of a rank that is killed are lost in its buffer.
        "PYTHONUNBUFFERED": "1",
    }
    interface = find_interface(environ.get("HPCTRAIN_SUBNET"), interfaces)
    if interface:
        # "=" makes NCCL match the whole name; gloo matches whole names anyway.
        defaults["NCCL_SOCKET_IFNAME"] = f"={interface}"
        defaults["GLOO_SOCKET_IFNAME"] = interface
        if "PMI_RANK" in environ:  # MPICH and Intel MPI: libfabric takes names, and no CIDR
            defaults["FI_TCP_IFACE"] = interface
    planned.update({name: value for name, value in defaults.items() if name not in environ})
    return planned


def find_interface(subnet: str | None, interfaces: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return the name that a network's interface has on this host.

    >>> find_interface("10.0.0.0/24", {"lo": ("127.0.0.1",), "ens5": ("10.0.0.7",)})
    'ens5'
    """
    if not subnet:
        return None
    import ipaddress

    network = ipaddress.ip_network(subnet)
    for name, addresses in interfaces.items():
        for address in addresses:
            try:
                if ipaddress.ip_address(address) in network:
                    return name
            except ValueError:
                continue  # a hardware address
    return None


def explain_rank_env(
    situation: Situation,
    users_own: Mapping[str, str],
    launch: LaunchConfig,
    *,
    planned: Mapping[str, str],
) -> list[tuple[str, str, str, str, str]]:
    """Return what the shims will decide on their hosts: (name, value, rule, fact, source).

    Args:
        planned: variables that a rule has set; like the user's own they stay as they are.
    """
    name, page = "OMP_NUM_THREADS", "docs/tuning.md"
    if name in users_own:
        rows = [(name, users_own[name], "yours, left alone", "set in this shell", page)]
    elif launch.threads_per_rank:
        value = str(launch.threads_per_rank)
        rows = [(name, value, "as asked", "launch.threads_per_rank", "configuration")]
    else:
        rule = (
            "decided on each host: its cores shared among its ranks, where torch would start "
            "as many threads as there are cores in every rank"
        )
        rows = [(name, _expected_threads(situation), rule, "cores and ranks of each host", page)]
    if situation.is_remote and situation.subnet:
        rule = "decided on each host: NCCL and gloo take names, which differ between hosts"
        source = "NCCL 2.30 user guide, 'Environment Variables'"
        names = [name for name in SUBNET_NAMES if name not in {*users_own, *planned}]
        if names:
            rows.append((", ".join(names), "the interface's name", rule, situation.subnet, source))
    return rows


def _expected_threads(situation: Situation) -> str:
    counts = {}
    for host, ranks in zip(situation.host_names, situation.local_ranks, strict=True):
        known = situation.facts.of(host)
        counts[host] = str(max(1, known.cores // ranks)) if known else "?"
    if len(set(counts.values())) == 1:
        return next(iter(counts.values()))
    return ", ".join(f"{host}: {count}" for host, count in counts.items())
